//! From when to when a program's own certificate is valid.
//!
//! The other end of a connection looks at that too, and refuses without saying much. So it is looked at here when
//! the file is read.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tracing::warn;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::error::GuardError;
use crate::flag_file::FlagFile;
use crate::limits::RENEW_BEFORE;

/// Whether the certificates of a file, the program's own and those that lead from it to the authority, are valid
/// now. Says so if one of them ends soon.
pub(crate) fn check(
    file: &FlagFile,
    certificates: &[CertificateDer<'_>],
) -> Result<(), GuardError> {
    let now = moment(seconds_since_1970(SystemTime::now()));
    for certificate in certificates {
        // What cannot be read is refused when it is used.
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            continue;
        };
        let validity = certificate.validity();
        if now > validity.not_after {
            return Err(GuardError::Expired {
                file: file.clone(),
                ended: validity.not_after.to_string(),
                now: now.to_string(),
            });
        }
        if now < validity.not_before {
            return Err(GuardError::NotYetValid {
                file: file.clone(),
                begins: validity.not_before.to_string(),
                now: now.to_string(),
            });
        }
        let left = validity.not_after.timestamp() - now.timestamp();
        if left < RENEW_BEFORE.as_secs().cast_signed() {
            let (path, ends) = (file.path.display(), validity.not_after);
            warn!(%path, %ends, "this certificate ends within a day: renew it, and it is read again");
        }
    }
    Ok(())
}

/// Before 1970 where a clock says so: one that lost its power is no reason to panic.
fn seconds_since_1970(time: SystemTime) -> i64 {
    let seconds = |span: std::time::Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => seconds(since),
        Err(before) => -seconds(before.duration()),
    }
}

/// The nearest moment that a certificate can name.
fn moment(seconds: i64) -> ASN1Time {
    const YEAR_10000: i64 = 253_402_300_800;
    let seconds = seconds.clamp(-YEAR_10000 / 8, YEAR_10000 - 1);
    ASN1Time::from_timestamp(seconds).expect("it is in the years 1000 to 9999")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn any_clock_says_a_moment() {
        let year = Duration::from_secs(365 * 86400);
        for time in [
            UNIX_EPOCH,
            UNIX_EPOCH - 60 * year,
            UNIX_EPOCH - 5000 * year,
            UNIX_EPOCH + 60 * year,
            UNIX_EPOCH + 20_000 * year,
        ] {
            assert!(!moment(seconds_since_1970(time)).to_string().is_empty());
        }
    }
}
