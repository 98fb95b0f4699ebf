//! HTTP in its plainest form: mirrors of the data set, on this machine, that do not have it, and
//! requests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use crate::program::{DEADLINE, eventually};

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
    let (address, path) = parts_of(url);
    let head = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\n{headers}");
    ask(address, &head)
}

/// As [`get`], by a browser that takes the server for another `host`.
pub(crate) fn get_as(url: &str, host: &str) -> String {
    let (address, path) = parts_of(url);
    ask(
        address,
        &format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n"),
    )
}

/// As [`get`], for the head alone.
pub(crate) fn head(url: &str) -> String {
    let (address, path) = parts_of(url);
    ask(
        address,
        &format!("HEAD /{path} HTTP/1.1\r\nHost: {address}\r\n"),
    )
}

/// Address and path of a URL.
fn parts_of(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").expect("a URL of HTTP");
    rest.split_once('/').expect("a URL has a path")
}

/// What a server answers to a request that begins with these lines.
fn ask(address: &str, head: &str) -> String {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(stream, "{head}Connection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().unwrap_or_else(|error| panic!("no answer to {head:?}: {error}"))
}

/// In the place of a server that has left: refuses every request, and tells when it came and its first line.
pub(crate) fn refuse_all(address: &str) -> Receiver<(Instant, String)> {
    let listener = eventually("the port of a server that has left", || {
        TcpListener::bind(address).ok()
    });
    let (came, requests) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let at = Instant::now();
            let mut line = String::new();
            // A client may go away; that is its right.
            let _ = BufReader::new(&stream).read_line(&mut line);
            let _ = stream
                .write_all(b"HTTP/1.1 503 Gone\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            // Nobody may be interested in the later ones.
            let _ = came.send((at, line));
        }
    });
    requests
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
