//! The flags that every program has for its data set.

use std::path::PathBuf;

use clap::Args;
use pserver_cli::exit::Failure;
use pserver_run::DataSet;
use reqwest::Url;

use crate::dataset::Dataset;
use crate::digest::Sha256Digest;
use crate::download::Source;
use crate::error::DataError;
use crate::obtain::WhenAbsent;

/// Where CIFAR-10 is, and where to get it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data set")]
pub struct DataArgs {
    /// Folder that CIFAR-10 is in, or is downloaded into, as cifar-10-batches-bin; or that folder itself
    #[arg(
        long,
        env = "CIFAR10_DATA_DIR",
        default_value = "/tmp/cifar10_data",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// Get the archive from this mirror instead of the authors' page
    #[arg(long, value_name = "URL", value_parser = url)]
    pub data_url: Option<Url>,

    /// SHA-256 of the mirror's archive; the files in it are checked in any case
    #[arg(long, value_name = "HEX", requires = "data_url")]
    pub data_sha256: Option<Sha256Digest>,
}

impl DataArgs {
    /// Opens `data_set` where the flags say; one that is absent is downloaded.
    ///
    /// # Errors
    ///
    /// As [`Dataset::open`].
    pub fn open(&self, data_set: DataSet) -> Result<Dataset, DataError> {
        let source = match &self.data_url {
            Some(url) => Source::mirror(url.as_str(), self.data_sha256),
            None => Source::cifar10(),
        };
        Dataset::open(data_set, &self.data_dir, &WhenAbsent::Download(source))
    }

    /// As [`open`](Self::open), with the exit code that a program ends with where that fails.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with the exit code of the [`DataError`].
    pub fn open_or_exit(&self, data_set: DataSet) -> Result<Dataset, Failure> {
        self.open(data_set)
            .map_err(|error| Failure::new(error.exit(), error))
    }
}

/// What can be downloaded.
fn url(text: &str) -> Result<Url, String> {
    let why = match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => "neither http nor https".to_owned(),
        Ok(url) if url.port() == Some(0) => "no server listens on port 0".to_owned(),
        Ok(url) => return Ok(url),
        Err(error) => error.to_string(),
    };
    Err(format!(
        "{why}; a URL looks like https://mirror.example/cifar-10-binary.tar.gz"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_downloaded_is_a_url() {
        for right in ["http://127.0.0.1:8080/x.tar.gz", "https://mirror.example/x"] {
            assert_eq!(url(right).unwrap().as_str(), right);
        }
        for (wrong, why) in [
            ("file:///x", "neither http nor https"),
            ("ftp://mirror.example/x", "neither http nor https"),
            ("mirror.example:80/x", "neither http nor https"),
            ("/srv/x.tar.gz", "relative URL"),
            ("https://", "empty host"),
            ("http://mirror.example:65536/", "invalid port"),
            ("http://mirror.example:0/", "port 0"),
            ("", "relative URL"),
        ] {
            let error = url(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
