//! A client's connection, unencrypted or over TLS, which remembers why a server would have none of it.
//!
//! In TLS 1.3 a server looks at a client's certificate after the client believes itself connected. So a
//! refusal comes with the first answer, through layers that keep only its text; here it is still known.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error, InvalidMessage};
use tokio_util::either::Either;

/// Why the last connection was refused for good, if it was.
#[derive(Clone, Debug, Default)]
pub struct Refusal(Arc<Mutex<Option<String>>>);

impl Refusal {
    /// In words.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, reason: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn note(&self, error: &io::Error) {
        if let Some(reason) = reason_of(error) {
            self.set(Some(reason));
        }
    }
}

/// Connects to `host`, as its certificate has to call it where there is TLS.
///
/// # Errors
///
/// As the system or TLS says; `refusal` knows whether that is for good.
pub async fn connect(
    host: &str,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    refusal: Refusal,
) -> io::Result<Connection> {
    refusal.set(None);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let is_unencrypted = tls.is_none();
    let stream = match tls {
        None => Either::Left(stream),
        Some(config) => {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let connected = TlsConnector::from(config).connect(name, stream).await;
            Either::Right(Box::new(
                connected.inspect_err(|error| refusal.note(error))?,
            ))
        }
    };
    Ok(Connection {
        stream,
        is_to_be_looked_at: is_unencrypted,
        refusal,
    })
}

/// The kinds of failure that trying again does not mend.
fn reason_of(error: &io::Error) -> Option<String> {
    use AlertDescription as Alert;
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    match error {
        Error::InvalidCertificate(reason) => Some(format!(
            "its certificate is none that --tls-ca vouches for: {reason}"
        )),
        Error::AlertReceived(Alert::CertificateRequired) => {
            Some("it asks for a certificate: give this program --tls-cert and --tls-key".to_owned())
        }
        Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::DecryptError
            | Alert::AccessDenied),
        ) => Some(format!(
            "it does not accept the certificate of this program: {alert:?}"
        )),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("it does not speak TLS, which --tls-ca asks for".to_owned())
        }
        _ => None,
    }
}

/// What the first byte of an answer is where a server speaks TLS: of an alert. In unencrypted HTTP/2 it is 0.
const ALERT: u8 = 0x15;

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    /// The first answer of an unencrypted server.
    is_to_be_looked_at: bool,
    refusal: Refusal,
}

impl Connection {
    /// Looks at the beginning of what an unencrypted server answers.
    fn look_at(&mut self, answer: &[u8]) {
        if self.is_to_be_looked_at
            && let Some(first) = answer.first()
        {
            self.is_to_be_looked_at = false;
            if *first == ALERT {
                let reason = "it speaks TLS: give this program --tls-ca";
                self.refusal.set(Some(reason.to_owned()));
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.look_at(&buffer.filled()[before..]);
        Poll::Ready(read.inspect_err(|error| self.refusal.note(error)))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
