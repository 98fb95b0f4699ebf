//! How a request's path names its method: `/SERVICE/METHOD`.

use crate::pb::parameter_server_server::SERVICE_NAME;

pub(crate) const PULL: &str = "Pull";
pub(crate) const PUSH: &str = "Push";

/// The path of a method.
pub(crate) fn path_of(method: &str) -> String {
    format!("/{SERVICE_NAME}/{method}")
}

/// The method that a path names; `None` if it is not one of this service.
pub(crate) fn named_by(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/')?.strip_prefix(SERVICE_NAME)?;
    path.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_method_of_this_service_and_of_no_other() {
        assert_eq!(path_of(PULL), "/cifar.ps.v1.ParameterServer/Pull");
        assert_eq!(named_by(&path_of(PULL)), Some(PULL));
        for other in [
            "/grpc.health.v1.Health/Check",
            "/cifar.ps.v1.ParameterServerX/Pull",
            "cifar.ps.v1.ParameterServer/Pull",
            "",
        ] {
            assert_eq!(named_by(other), None, "{other}");
        }
    }
}
