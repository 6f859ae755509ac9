# The agent of a network test: makes the attempts of `cases.1`, `cases.2`, … as they appear, until there is an `end`, in
# which its status may stand.
touch up
n=1
until [ -e end ]; do
    if [ -e cases.$n ]; then
        perl attempts.pl cases.$n >out.$n 2>&1
        mv out.$n results.$n
        n=$((n + 1))
    else
        sleep 0.02
    fi
done
status=$(cat end)
exit "${status:-0}"
