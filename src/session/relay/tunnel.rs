//! Asks the proxy that this machine uses itself for a tunnel to a server.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::{domain::upstream::Upstream, report::one_line};

const CONNECT: Duration = Duration::from_secs(5);

/// How long the proxy may take to reach the server.
const ANSWER: Duration = Duration::from_secs(30);

/// How long its answer may be, in bytes.
const LONGEST: usize = 8192;

/// A connection to this server, through the proxy. The proxy looks the name up.
///
/// # Errors
/// The proxy does not answer, or does not let it through; the error says what it said.
pub(super) fn tunnel(upstream: &Upstream, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut proxy = connect(upstream.address())?;
    proxy.set_nodelay(true)?;
    proxy.set_read_timeout(Some(ANSWER))?;
    let login = upstream
        .login()
        .map(|login| format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(login.as_bytes())));
    let login = login.unwrap_or_default();
    proxy.write_all(
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login}\r\n").as_bytes(),
    )?;
    let status = status(&mut proxy)?;
    let code = status.split(' ').nth(1).filter(|_| status.starts_with("HTTP/1."));
    if code.is_none_or(|code| code.len() != 3 || !code.starts_with('2')) {
        return Err(io::Error::other(format!("it answered `{}`", one_line(&status))));
    }
    proxy.set_read_timeout(None)?;
    Ok(proxy)
}

fn connect(address: (&str, u16)) -> io::Result<TcpStream> {
    let mut last = io::Error::other("its name is not known");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(proxy) => return Ok(proxy),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The first line of the proxy's answer. Reads its header and no byte behind it, which is the server's.
fn status(proxy: &mut TcpStream) -> io::Result<String> {
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"\r\n\r\n") {
        if said.len() == LONGEST {
            return Err(io::Error::other("its answer has no end"));
        }
        match proxy.read(&mut byte) {
            Ok(0) => return Err(io::Error::other("it ended the connection")),
            Ok(_) => said.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let line = said.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What a client gets from a proxy that answers like this, and what the proxy was asked.
    fn asked(answer: &'static [u8], login: &str) -> (Result<Vec<u8>, String>, String) {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{login}{}", proxy.local_addr().unwrap());
        let heard = thread::spawn(move || {
            let (mut client, _) = proxy.accept().unwrap();
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") {
                client.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            client.write_all(answer).unwrap();
            String::from_utf8(asked).unwrap()
        });
        let tunnel = tunnel(&Upstream::parse(&address, "").unwrap(), "api.example", 443);
        let got = tunnel.map_err(|error| error.to_string()).map(|mut server| {
            let mut got = Vec::new();
            server.read_to_end(&mut got).unwrap();
            got
        });
        (got, heard.join().unwrap())
    }

    #[test]
    fn behind_the_proxys_answer_the_server_speaks() {
        let (got, asked) = asked(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nthe server\r\n\r\n", "me:p%2Fss@");
        assert_eq!(got, Ok(b"the server\r\n\r\n".to_vec()));
        assert_eq!(
            asked,
            "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\nProxy-Authorization: Basic bWU6cC9zcw==\r\n\r\n"
        );
    }

    #[test]
    fn a_proxy_that_lets_nothing_through_is_told_in_its_own_words() {
        for (answer, said) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "it answered `HTTP/1.1 407 Proxy"),
            (b"HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n", "it answered `HTTP/1.1 302"),
            (b"SSH-2.0-x 200\r\n\r\n", "it answered `SSH-2.0"),
            (b"HTTP/1.1 200", "it ended the connection"),
            (&[b'x'; 10_000], "its answer has no end"),
        ] {
            let (got, _) = asked(answer, "");
            assert!(got.as_ref().is_err_and(|error| error.starts_with(said)), "{got:?}");
        }
    }
}
