//! An HTTP server on this machine that hands out one file, well or badly.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cifar_data::{Patience, Source};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

/// How the server treats one request. `body` is what it serves, whole.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Answers as it should, ranges included.
    Good,
    /// Sends the whole file whatever range was asked for.
    IgnoresRange,
    /// Announces the rest of the file and closes after so many bytes of it.
    CutsAfter(usize),
    /// Sends so many bytes and then nothing, with the connection open.
    SilentAfter(usize),
    /// Sends a byte every few milliseconds, for ever.
    Trickles,
    /// Answers with this status and no body.
    Status(u16),
}

/// A server on this machine, for as long as the test runs.
pub(crate) struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Treats the first request in the first manner, and so on; the last manner stays.
    pub(crate) fn start(body: Vec<u8>, manners: &[Manner]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a.tar.gz", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (manners, seen) = (manners.to_vec(), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_head(&mut stream);
                let index = seen.lock().unwrap().len().min(manners.len() - 1);
                seen.lock().unwrap().push(request.clone());
                let (body, manner) = (body.clone(), manners[index]);
                // A client that gives up closes the connection; that is its right.
                thread::spawn(move || answer(&mut stream, &request, &body, manner));
            }
        });
        Server { url, requests }
    }

    /// This server's file, of which nothing is known beforehand. Retries come at once; waits are
    /// long enough for a busy machine.
    pub(crate) fn source(&self) -> Source {
        Source {
            patience: Patience {
                connect: Duration::from_secs(5),
                read: Duration::from_secs(20),
                stall: Duration::from_secs(20),
                attempts: 3,
                pause: Duration::from_millis(1),
                lock: Duration::from_secs(60),
            },
            ..Source::mirror(&self.url, None)
        }
    }

    /// The heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// A server over TLS with a certificate that no authority has made: its URL, and how many connections came.
pub(crate) fn with_own_certificate() -> (String, Arc<AtomicUsize>) {
    let name = "localhost".to_owned();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    let connections = Arc::new(AtomicUsize::new(0));
    let came = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            came.fetch_add(1, Ordering::SeqCst);
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // The client does not like what it sees.
            let _ = connection.complete_io(&mut stream.unwrap());
        }
    });
    (url, connections)
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// The first byte that a request asks for.
pub(crate) fn range_start(request: &str) -> Option<usize> {
    let (_, range) = request.split_once("range: bytes=")?;
    range.split_once('-')?.0.parse().ok()
}

fn answer(stream: &mut TcpStream, request: &str, body: &[u8], manner: Manner) -> io::Result<()> {
    let start = match manner {
        Manner::IgnoresRange => None,
        _ => range_start(request),
    };
    let rest = match start {
        Some(start) if start >= body.len() => {
            return head(stream, "416 Range Not Satisfiable", 0, "");
        }
        start => &body[start.unwrap_or(0)..],
    };
    if let Manner::Status(status) = manner {
        return head(stream, &format!("{status} No"), 0, "");
    }
    match start {
        None => head(stream, "200 OK", rest.len(), "")?,
        Some(start) => {
            let range = format!(
                "Content-Range: bytes {start}-{}/{}\r\n",
                body.len() - 1,
                body.len()
            );
            head(stream, "206 Partial Content", rest.len(), &range)?;
        }
    }
    match manner {
        Manner::CutsAfter(length) => stream.write_all(&rest[..length.min(rest.len())]),
        Manner::SilentAfter(length) => {
            stream.write_all(&rest[..length])?;
            // Until the client closes.
            stream.read(&mut [0]).map(drop)
        }
        Manner::Trickles => rest.iter().try_for_each(|byte| {
            thread::sleep(Duration::from_millis(5));
            stream.write_all(&[*byte])
        }),
        _ => stream.write_all(rest),
    }
}

fn head(stream: &mut TcpStream, status: &str, length: usize, more: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
    )
}
