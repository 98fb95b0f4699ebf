//! How a request's path names its method: `/SERVICE/METHOD`.

use crate::pb::parameter_server_server::SERVICE_NAME;

pub(crate) const PULL: &str = "Pull";
pub(crate) const PUSH: &str = "Push";

/// The service of the protocols up to 5.
const FORMER_SERVICE: &str = "/cifar.ps.v1.ParameterServer/";

/// The path of a method.
pub(crate) fn path_of(method: &str) -> String {
    format!("/{SERVICE_NAME}/{method}")
}

/// The method that a path names; `None` if it is not one of this service.
pub(crate) fn named_by(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/')?.strip_prefix(SERVICE_NAME)?;
    path.strip_prefix('/')
}

/// Whether a program of a release that spoke an earlier protocol asks.
pub(crate) fn is_former(path: &str) -> bool {
    path.starts_with(FORMER_SERVICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_method_of_this_service_and_of_no_other() {
        assert_eq!(path_of(PULL), "/pserver.v1.ParameterServer/Pull");
        assert_eq!(named_by(&path_of(PULL)), Some(PULL));
        for other in [
            "/grpc.health.v1.Health/Check",
            "/pserver.v1.ParameterServerX/Pull",
            "pserver.v1.ParameterServer/Pull",
            "",
        ] {
            assert_eq!(named_by(other), None, "{other}");
        }
    }
}
