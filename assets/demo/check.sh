
# The attempts of `pi demo`. The arguments: HOST_HOME MODEL_HOST:PORT. `repository-write`, `home-write` and `model` ought
# to be allowed, all else refused.

home=${1:?the home directory of the host user}
address=${2:?address and port of the model}

# These two wait for answers that should not come, so they begin first. They are told last.
exec 3< <(attempt engine-port) 4< <(attempt internet)

attempt repository-write
attempt home-write
attempt etc-write
attempt usr-write
attempt host-home-write "$home"
attempt ssh-keys "$home"
attempt other-repositories
attempt root
attempt mounting
attempt user-namespace
attempt devices
attempt host-processes
attempt model "$address"
attempt engine-socket "$home"
cat <&3
cat <&4
exit 0
