//! Clients that take all they can of a server, while workers train.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http_body_util::Full;
use hyper_util::rt::TokioIo;
use pserver_guard::limits::{MAX_CONNECTIONS, MAX_CONNECTIONS_OF_ADDRESS, raise_open_files};
use pserver_wire::transport::endpoint;
use tokio::net::TcpSocket;
use tokio::runtime;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

use crate::cluster::Cluster;

/// A connection from `source` that has asked for the run, as everybody may.
async fn connected(server: &str, source: Ipv4Addr) -> Option<Channel> {
    let server: SocketAddr = server.parse().unwrap();
    let connector = tower::service_fn(move |_| async move {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
        std::io::Result::Ok(TokioIo::new(socket.connect(server).await?))
    });
    let endpoint = endpoint(&server.to_string(), &cifar_model::layout()).unwrap();
    let mut channel = endpoint.connect_with_connector(connector).await.ok()?;
    let request = Request::post("http://server/pserver.v1.ParameterServer/GetRun")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::from(&[0; 5][..])))
        .unwrap();
    let answer = channel.ready().await.ok()?.call(request).await.ok()?;
    answer.status().is_success().then_some(channel)
}

#[test]
fn two_addresses_that_take_all_connections_keep_no_worker_out() {
    raise_open_files();
    let mut cluster = Cluster::builder().workers(1).max_steps(1_000_000).start();
    cluster.wait_for_step(1);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let crowd = runtime.block_on(async {
        let mut crowd = Vec::new();
        for source in [2, 3].map(|host| Ipv4Addr::new(127, 0, 0, host)) {
            for _ in 0..MAX_CONNECTIONS_OF_ADDRESS {
                crowd.extend(connected(&cluster.server.address, source).await);
            }
        }
        crowd
    });
    assert!(crowd.len() > MAX_CONNECTIONS - 10, "{}", crowd.len());
    cluster.add_worker(&[]);
    cluster.workers[1].wait_for("to be registered", |worker| {
        worker.stderr().contains("registered").then_some(())
    });
    let step = cluster.wait_for_step(0).0;
    cluster.wait_for_step(step + 10);
    assert!(!cluster.workers[0].stderr().contains("try again"));
    drop(crowd);
}
