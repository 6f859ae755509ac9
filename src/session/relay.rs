//! Passes what the sidecar sends to a socket in the session's directory on to the one server of that socket: on this
//! machine's loopback, or behind the proxy that this machine uses itself. Only the sidecar and this user can open the
//! socket, so nobody else's machine or container reaches the server by it.

mod tunnel;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

use self::tunnel::tunnel;
use crate::{
    broker::relay::{Relay, Way},
    domain::upstream::Upstream,
    files::set_mode,
    plan::RELAYS,
    report,
};

/// How many connections one server gets at a time.
const AT_ONCE: usize = 64;

const CONNECT: Duration = Duration::from_secs(5);

/// How much of a question is read that nobody can answer.
const LONGEST: u64 = 64 << 20;

/// Opens a socket for each server. They are served until this process ends.
pub(super) fn start(session: &Path, relays: &[Relay], upstream: Option<&Upstream>) -> anyhow::Result<()> {
    if relays.is_empty() {
        return Ok(());
    }
    let dir = session.join(RELAYS);
    let could = || format!("could not make the sockets in `{}`", dir.display());
    // The sidecar's users are nobody on this machine. What is above is private.
    fs::create_dir_all(&dir).and_then(|()| set_mode(&dir, 0o755)).with_context(could)?;
    for relay in relays {
        let listener = listen(&dir, &relay.socket()).with_context(could)?;
        let (relay, upstream) = (relay.clone(), upstream.cloned());
        thread::spawn(move || serve(&listener, &relay, upstream.as_ref()));
    }
    Ok(())
}

/// Binds by a short name: a socket's path has at most about 100 bytes.
fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let path = dir.join(name);
    let listener = if cfg!(target_os = "linux") {
        let dir = rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_fd().as_raw_fd()))?
    } else {
        UnixListener::bind(&path)?
    };
    set_mode(&path, 0o666)?;
    Ok(listener)
}

fn serve(listener: &UnixListener, relay: &Relay, upstream: Option<&Upstream>) {
    let busy = Arc::new(AtomicUsize::new(0));
    let told = Arc::new(AtomicBool::new(false));
    for client in listener.incoming() {
        let Ok(client) = client else {
            // Too many files are open: some of them will be closed.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        if busy.fetch_add(1, Ordering::SeqCst) >= AT_ONCE {
            busy.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (relay, upstream) = (relay.clone(), upstream.cloned());
        let (busy, told) = (busy.clone(), told.clone());
        thread::spawn(move || {
            // The client sees its connection end.
            let _ = match (relay.way, &upstream) {
                (Way::Proxy, Some(upstream)) => through(client, upstream, &relay, &told),
                _ => match connect(&relay) {
                    Ok(server) => pass(client, server),
                    Err(error) => excuse(client, &relay, &error),
                },
            };
            busy.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Passes on through the machine's own proxy. The client speaks TLS, so an excuse is for the user, and once.
fn through(client: UnixStream, upstream: &Upstream, relay: &Relay, told: &AtomicBool) -> io::Result<()> {
    match tunnel(upstream, &relay.host, relay.port) {
        Ok(server) => pass(client, server),
        Err(error) => {
            if !told.swap(true, Ordering::SeqCst) {
                report::warn(format_args!(
                    "the proxy in `HTTPS_PROXY` does not lead to {}:{}: {error}",
                    relay.host, relay.port
                ));
            }
            Err(error)
        }
    }
}

fn connect(relay: &Relay) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::NotFound.into();
    for address in addresses(relay) {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(server) => return server.set_nodelay(true).map(|()| server),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The relay's addresses, without those that are not on the loopback, whatever the name says.
fn addresses(Relay { host, port, .. }: &Relay) -> Vec<SocketAddr> {
    let host = match host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        name if name.ends_with(".localhost") => "localhost",
        host => host,
    };
    let found = (host, *port).to_socket_addrs().into_iter().flatten();
    found.filter(|address| address.ip().is_loopback()).collect()
}

/// Says why there is no server, as an answer to any request.
fn excuse(mut client: UnixStream, Relay { host, port, .. }: &Relay, error: &io::Error) -> io::Result<()> {
    let text = format!("pi: no server answers at {host}:{port} of your machine: {error}\n");
    let length = text.len();
    let head = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: text/plain\r\n";
    client.write_all(format!("{head}content-length: {length}\r\n\r\n{text}").as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    // An answer can be lost with a question that nobody has read.
    client.set_read_timeout(Some(CONNECT))?;
    io::copy(&mut client.take(LONGEST), &mut io::sink()).map(drop)
}

/// Copies both ways until both sides have said all.
fn pass(client: UnixStream, server: TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = io::copy(&mut from_server, &mut to_client);
    // The server has said all, so nobody waits for the rest of a question.
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = from_server.shutdown(Shutdown::Both);
    let _ = up.join();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_not_followed() {
        let of = |host: &str| addresses(&Relay { host: host.to_owned(), port: 1, way: Way::Loopback });
        assert_eq!(of("0.0.0.0"), of("127.0.0.1"));
        assert_eq!(of("x.localhost"), of("localhost"));
        assert!(of("10.0.0.1").is_empty() && of("8.8.8.8").is_empty());
    }

    #[test]
    fn what_is_sent_to_the_socket_arrives_and_the_answer_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let relay = Relay { host: "127.0.0.1".to_owned(), port, way: Way::Loopback };
        start(&deep, std::slice::from_ref(&relay), None).unwrap();
        let answered = thread::spawn(move || {
            for _ in 0..3 {
                let (mut stream, _) = server.accept().unwrap();
                let mut asked = String::new();
                stream.read_to_string(&mut asked).unwrap();
                stream.write_all(asked.to_uppercase().as_bytes()).unwrap();
            }
        });
        let sockets = rustix::fs::open(deep.join(RELAYS), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3 {
            let path = format!("/proc/self/fd/{}/{}", sockets.as_fd().as_raw_fd(), relay.socket());
            let mut client = UnixStream::connect(path).unwrap();
            client.write_all(&b"a question ".repeat(10_000)).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut said = String::new();
            client.read_to_string(&mut said).unwrap();
            assert_eq!(said, "A QUESTION ".repeat(10_000));
        }
        answered.join().unwrap();
    }
}
