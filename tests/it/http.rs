//! HTTP in its plainest form: mirrors of the data set, on this machine, that do not have it, and
//! requests.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::program::DEADLINE;

/// Answers every request with `status` and `body`, for as long as the tests run; gives its address.
pub(crate) fn serve(status: &'static str, body: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client may go away; that is its right.
            let _ = answer(stream, status, body);
        }
    });
    format!("http://{address}/cifar-10-binary.tar.gz")
}

/// A mirror that lets clients connect and never answers; its address, and a message for each
/// client that came.
pub(crate) fn silence() -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    let (came, clients) = mpsc::channel();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(stream);
            // Nobody may be interested in the later ones.
            let _ = came.send(());
        }
    });
    (format!("http://{address}/cifar-10-binary.tar.gz"), clients)
}

/// What a server answers when it is asked for a URL: head and body.
pub(crate) fn get(url: &str) -> String {
    get_with(url, "")
}

/// As [`get`], with these lines of headers besides.
pub(crate) fn get_with(url: &str, headers: &str) -> String {
    let rest = url.strip_prefix("http://").expect("a URL of HTTP");
    let (address, path) = rest.split_once('/').expect("a URL has a path");
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(
            stream,
            "GET /{path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().unwrap_or_else(|error| panic!("cannot get {url}: {error}"))
}

fn answer(mut stream: TcpStream, status: &str, body: &[u8]) -> io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(body)
}
