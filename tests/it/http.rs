//! Mirrors of the data set, on this machine, that do not have it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

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
