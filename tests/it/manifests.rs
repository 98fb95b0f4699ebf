//! Are the manifests in `deploy/` true? They name flags, ports, exit codes and each other, and nothing
//! but this would notice when one of them changes.
//!
//! That Kubernetes understands them is for `deploy/check/validate` to say, which is run here where
//! there is a `kubectl`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use cifar_data::download::{CIFAR10_ARCHIVE_SHA256, CIFAR10_URL};
use clap::CommandFactory;
use pserver_cli::exit::Exit;
use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cluster::Cluster;
use crate::program::{Program, SERVER, command, skip};
use crate::rendering::{
    Container, Job, Rendering, at, deploy, has_kubectl, items, read, renderings,
    second_run_with_everything, sources, text,
};

/// Where a server listens if nothing else is said.
const DEFAULT_PORT: u64 = 2222;

/// The command line of a program.
fn command_of(program: &str) -> clap::Command {
    match program {
        "cifar-ps" => pserver_server::Args::command(),
        "cifar-worker" => cifar_worker::worker_program::Args::command(),
        "cifar-eval" => cifar_worker::eval_program::Args::command(),
        "cifar-data" => cifar_data::program::Args::command(),
        _ => panic!("{program} is no program of this project"),
    }
}

fn flag_of(argument: &str) -> &str {
    argument.split('=').next().unwrap_or(argument)
}

/// The value of a flag among arguments of the form `--flag=value`.
fn value_of<'a>(arguments: &'a [String], flag: &str) -> Option<&'a str> {
    let with_flag = |argument: &'a String| argument.strip_prefix(flag)?.strip_prefix('=');
    arguments.iter().find_map(with_flag)
}

fn port_of(address: &str) -> u64 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// Does something with each Job of each rendering.
fn for_each_job(look: impl Fn(&Rendering, &Job)) {
    for rendering in renderings() {
        for job in rendering.jobs() {
            look(&rendering, &job);
        }
    }
}

/// Does something with each container of each rendering.
fn for_each_container(look: impl Fn(&Rendering, &Job, &Container)) {
    for_each_job(|rendering, job| {
        for container in job.containers() {
            look(rendering, job, &container);
        }
    });
}

#[test]
fn programs_understand_what_manifests_give_them() {
    for_each_container(|rendering, _, container| {
        let command = command_of(container.program());
        let arguments = container.arguments(rendering.settings());
        let line = [vec![container.program().to_owned()], arguments].concat();
        if let Err(error) = command.try_get_matches_from(line) {
            panic!("{}: {error}", container.name);
        }
    });
}

/// Components too, which are only seen whole where they can be rendered.
#[test]
fn every_flag_in_a_source_exists() {
    let mut known = BTreeSet::new();
    for program in ["cifar-ps", "cifar-worker", "cifar-eval", "cifar-data"] {
        let command = command_of(program);
        let longs = command.get_arguments().filter_map(|flag| flag.get_long());
        known.extend(longs.map(|long| format!("--{long}")));
    }
    for file in sources() {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let value = line.trim_start().trim_start_matches("- ");
            let value = value.trim_start_matches("value: ");
            if value.starts_with("--") && value != "---" {
                let (flag, file) = (flag_of(value), file.display());
                assert!(
                    known.contains(flag),
                    "{file} names {flag}, which nobody has"
                );
            }
        }
    }
}

#[test]
fn every_setting_is_used_and_the_data_set_is_the_published_one() {
    for rendering in renderings() {
        let settings = rendering.settings();
        let manifest = serde_json::to_string(&rendering.documents).unwrap();
        for setting in settings.as_object().unwrap().keys() {
            // Programs read this one themselves.
            let is_used = setting == "RUST_LOG" || manifest.contains(&format!("$({setting})"));
            assert!(is_used, "{}: nobody uses {setting}", rendering.name);
        }
        assert_eq!(settings["DATA_URL"], CIFAR10_URL);
        assert_eq!(settings["DATA_SHA256"], CIFAR10_ARCHIVE_SHA256);
    }
}

/// By a variable in an argument, or by one that the program reads itself.
#[test]
fn every_flag_that_describes_a_run_is_set_in_the_one_place() {
    /// What the manifests themselves see to, and what is done once by hand.
    const OF_THE_POD: [&str; 10] = [
        "listen",
        "http",
        "health",
        "train-dir",
        "fresh",
        "tls-cert",
        "tls-key",
        "tls-client-ca",
        "token-file",
        "insecure",
    ];
    let settings = read(&deploy().join("base/run.yaml"));
    let server = read(&deploy().join("base/server.yaml"));
    let has = |setting: &str| settings.contains(&format!(" {setting}: "));
    let command = pserver_server::Args::command();
    let flags = command.get_arguments().filter(|flag| !flag.is_hide_set());
    for flag in flags {
        let Some(long) = flag.get_long().filter(|long| !OF_THE_POD.contains(long)) else {
            continue;
        };
        let variable = long.to_uppercase().replace('-', "_");
        let is_argument = server.contains(&format!("--{long}=$({variable})")) && has(&variable);
        let own = flag.get_env().map(|name| name.to_string_lossy());
        let is_own = own.is_some_and(|name| has(&name));
        assert!(is_argument || is_own, "run.yaml does not set --{long}");
    }
}

#[test]
fn ports_are_those_that_the_server_listens_on() {
    assert!(
        pserver_server::Args::command()
            .get_arguments()
            .any(|argument| {
                argument.get_id() == "listen"
                    && argument.get_default_values()[0]
                        .to_string_lossy()
                        .ends_with(&format!(":{DEFAULT_PORT}"))
            })
    );
    for rendering in renderings() {
        let settings = rendering.settings();
        let jobs = rendering.jobs();
        let server = jobs.iter().find(|job| job.component() == "server").unwrap();
        let container = &server.containers()[0];
        let arguments = container.arguments(settings);
        let listens =
            ["--listen", "--http", "--health"].map(|flag| value_of(&arguments, flag).map(port_of));
        assert_eq!(listens[0], Some(DEFAULT_PORT), "{}", rendering.name);

        let declared: BTreeSet<u64> = items(&container.spec["ports"])
            .map(|port| port["containerPort"].as_u64().unwrap())
            .collect();
        assert_eq!(declared, listens.into_iter().flatten().collect());

        // Probes know no TLS: where there is a plain port for health, they take that.
        let health = listens[2].or(listens[0]).unwrap();
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let port = &container.spec[probe]["grpc"]["port"];
            assert_eq!(port, &json!(health), "{}: {probe}", rendering.name);
        }

        let service = rendering.of_kind("Service").next().unwrap();
        let names: Vec<&Value> = items(&container.spec["ports"])
            .map(|p| &p["name"])
            .collect();
        assert_eq!(items(at(service, "spec.ports")).count(), 2);
        for port in items(at(service, "spec.ports")) {
            assert!(names.contains(&&port["targetPort"]), "{port}");
            assert!(declared.contains(&port["port"].as_u64().unwrap()), "{port}");
        }
        for client in jobs.iter().filter(|job| job.component() != "server") {
            let container = client.containers().pop().unwrap();
            let arguments = container.arguments(settings);
            let name = text(at(service, "metadata.name"));
            let address = format!("{name}:{DEFAULT_PORT}");
            assert_eq!(value_of(&arguments, "--server"), Some(address.as_str()));
        }
    }
}

/// A server that listens as in a pod, started by `command`; where it says that it listens.
fn listening_everywhere(command: &mut Command, train_dir: &Path) -> (Program, SocketAddr) {
    let flags = ["--insecure", "--listen", "[::]:0", "--data", "synthetic"];
    let server = Program::start(command.args(flags).arg("--train-dir").arg(train_dir));
    let address = server.wait_for("listening ADDR", |server| {
        let stdout = server.stdout();
        let line = stdout.lines().next()?;
        line.strip_prefix("listening ")?.parse().ok()
    });
    (server, address)
}

#[test]
fn a_server_on_all_addresses_is_reached_by_ipv4_and_ipv6() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, address) = listening_everywhere(&mut command(SERVER), folder.path());
    assert_eq!(address.ip(), Ipv6Addr::UNSPECIFIED);
    TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).unwrap();
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        TcpStream::connect((Ipv6Addr::LOCALHOST, address.port())).unwrap();
    }
}

#[test]
fn where_the_kernel_has_no_ipv6_all_addresses_are_those_of_ipv4() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/it/without_ipv6.py");
    let folder = tempfile::tempdir().unwrap();
    let mut server = command("python3");
    server.args([script, SERVER]);
    let (_server, address) = listening_everywhere(&mut server, folder.path());
    assert_eq!(address.ip(), Ipv4Addr::UNSPECIFIED);
    TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).unwrap();
}

#[test]
fn probes_ask_for_a_service_that_the_server_has() {
    let mut services = BTreeSet::new();
    for_each_container(|_, _, container| {
        let has_probe = !container.spec["livenessProbe"].is_null();
        assert_eq!(has_probe, container.program() == "cifar-ps");
    });
    for rendering in renderings() {
        for container in rendering.jobs().iter().flat_map(Job::containers) {
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                let service = &container.spec[probe]["grpc"]["service"];
                services.insert(service.as_str().unwrap_or_default().to_owned());
            }
        }
    }

    let cluster = Cluster::builder().workers(0).start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let address = format!("http://{}", cluster.server.address);
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap();
        let mut health = HealthClient::new(channel.connect().await.unwrap());
        for service in services {
            let request = HealthCheckRequest {
                service: service.clone(),
            };
            let reply = health.check(request).await.unwrap().into_inner();
            assert_eq!(reply.status(), ServingStatus::Serving, "{service:?}");
        }
        let request = HealthCheckRequest {
            service: "made.up".to_owned(),
        };
        assert!(health.check(request).await.is_err());
    });
}

/// The exit codes in a rule of the Job's policy, by what is done about them.
fn codes(job: &Job, action: &str) -> Vec<u64> {
    items(at(job.spec, "podFailurePolicy.rules"))
        .filter(|rule| rule["action"] == action)
        .flat_map(|rule| items(at(rule, "onExitCodes.values")))
        .map(|code| code.as_u64().unwrap())
        .collect()
}

#[test]
fn what_follows_an_exit_code_is_what_the_code_means() {
    let numbers = |exits: &[Exit]| -> Vec<u64> { exits.iter().map(|exit| *exit as u64).collect() };
    for_each_job(|_, job| {
        let (fail_job, fail_index): (&[Exit], &[Exit]) = match job.component() {
            "server" => {
                let hopeless = &[Exit::Usage, Exit::Diverged, Exit::Disk, Exit::Permanent];
                (hopeless, &[])
            }
            // One worker may be refused or in quarantine; the run goes on without it.
            "worker" => (&[Exit::Usage, Exit::Diverged], &[Exit::Permanent]),
            "evaluator" => (&[Exit::Usage, Exit::Diverged, Exit::Permanent], &[]),
            other => panic!("{other} is no part of a run"),
        };
        assert_eq!(codes(job, "FailJob"), numbers(fail_job), "{}", job.name);
        assert_eq!(codes(job, "FailIndex"), numbers(fail_index), "{}", job.name);

        let main = text(&at(job.spec, "template.spec.containers")[0]["name"]);
        let mut ignores_disruption = false;
        for rule in items(at(job.spec, "podFailurePolicy.rules")) {
            match rule["action"].as_str() {
                Some("Ignore") => {
                    ignores_disruption = true;
                    let condition = &at(rule, "onPodConditions")[0];
                    assert_eq!(condition["type"], "DisruptionTarget");
                }
                _ => assert_eq!(at(rule, "onExitCodes.containerName"), main),
            }
        }
        assert!(ignores_disruption, "{}", job.name);
        // Kubernetes asks for these where there is such a policy.
        assert_eq!(job.pod()["restartPolicy"], "Never");
        assert_eq!(job.spec["podReplacementPolicy"], "Failed");
        let per_index = !job.spec["backoffLimitPerIndex"].is_null();
        assert_eq!(per_index, job.component() == "worker", "{}", job.name);
    });
}

/// One worker ends with 0 only when the server said that the run is complete.
#[test]
fn workers_are_done_when_one_of_them_is() {
    for_each_job(|_, job| {
        let is_worker = job.component() == "worker";
        let success = &at(job.spec, "successPolicy.rules")[0]["succeededCount"];
        assert_eq!(success == &json!(1), is_worker, "{}", job.name);
        if is_worker {
            assert_eq!(job.spec["completionMode"], "Indexed");
            assert_eq!(job.spec["parallelism"], job.spec["completions"]);
        }
    });
}

/// Whether all labels that are asked for are there.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object();
    let all_equal = equal.is_none_or(|wanted| {
        let mut wanted = wanted.iter();
        wanted.all(|(key, value)| &labels[key] == value)
    });
    all_equal
        && items(&selector["matchExpressions"]).all(|expression| {
            assert_eq!(expression["operator"], "In");
            items(&expression["values"]).any(|value| value == &labels[text(&expression["key"])])
        })
}

/// The parts of the run that a selector finds.
fn selected<'a>(rendering: &'a Rendering, selector: &Value) -> Vec<&'a str> {
    let jobs = rendering.jobs();
    let found = jobs.iter().filter(|job| selects(selector, job.labels()));
    found.map(Job::component).collect()
}

#[test]
fn selectors_find_what_they_are_for() {
    for rendering in renderings() {
        let service = rendering.of_kind("Service").next().unwrap();
        let selector = json!({ "matchLabels": at(service, "spec.selector") });
        assert_eq!(selected(&rendering, &selector), ["server"]);
        assert_eq!(at(service, "spec.clusterIP"), "None");
        assert_eq!(at(service, "spec.publishNotReadyAddresses"), true);
        for job in rendering.jobs() {
            let subdomain = &job.pod()["subdomain"];
            if job.component() == "server" {
                assert_eq!(subdomain, at(service, "metadata.name"), "{}", job.name);
                assert_eq!(job.spec["completionMode"], "Indexed");
            }
        }
        for budget in rendering.of_kind("PodDisruptionBudget") {
            let selector = at(budget, "spec.selector");
            assert_eq!(selected(&rendering, selector), ["server"]);
        }
        for monitor in rendering.of_kind("ServiceMonitor") {
            let selector = at(monitor, "spec.selector");
            assert!(selects(selector, at(service, "metadata.labels")));
            let port = &at(monitor, "spec.endpoints")[0]["port"];
            let mut ports = items(at(service, "spec.ports"));
            assert!(ports.any(|served| &served["name"] == port));
        }
    }
}

/// Whatever finds pods by their labels.
fn pod_selectors(rendering: &Rendering) -> Vec<Value> {
    let services = rendering.of_kind("Service");
    let mut found: Vec<Value> = services
        .map(|service| json!({ "matchLabels": at(service, "spec.selector") }))
        .collect();
    for budget in rendering.of_kind("PodDisruptionBudget") {
        found.push(at(budget, "spec.selector").clone());
    }
    for policy in rendering.of_kind("NetworkPolicy") {
        found.push(at(policy, "spec.podSelector").clone());
        let ingress = items(at(policy, "spec.ingress")).flat_map(|rule| items(&rule["from"]));
        let egress = items(at(policy, "spec.egress")).flat_map(|rule| items(&rule["to"]));
        let peers = ingress.chain(egress).map(|peer| &peer["podSelector"]);
        found.extend(peers.filter(|selector| !selector.is_null()).cloned());
    }
    found
}

fn assert_finds_nothing(one: &Rendering, other: &Rendering) {
    let what = format!("{} finds pods of {}", one.name, other.name);
    let selectors = pod_selectors(one);
    assert!(selectors.len() >= 6, "{selectors:?}");
    for selector in selectors {
        assert!(!selected(one, &selector).is_empty(), "{selector}");
        assert!(selected(other, &selector).is_empty(), "{what}: {selector}");
    }
    for monitor in one.of_kind("ServiceMonitor") {
        for service in other.of_kind("Service") {
            let labels = at(service, "metadata.labels");
            assert!(!selects(at(monitor, "spec.selector"), labels), "{what}");
        }
    }
}

#[test]
fn two_runs_in_one_namespace_do_not_find_each_others_pods() {
    let (second, first): (Vec<_>, Vec<_>) = renderings()
        .into_iter()
        .partition(|rendering| rendering.name == "second-run");
    if !has_kubectl() {
        return;
    }
    assert_eq!(second.len(), 1);
    for second in second.into_iter().chain([second_run_with_everything()]) {
        for first in &first {
            assert_finds_nothing(first, &second);
            assert_finds_nothing(&second, first);
        }
    }
}

#[test]
fn everything_has_the_usual_labels_and_pods_too() {
    for rendering in renderings() {
        let of_pods = rendering.jobs();
        let of_pods = of_pods.iter().map(|job| (job.name.as_str(), job.labels()));
        let documents = rendering.documents.iter();
        let own = documents.map(|d| (text(&d["kind"]), at(d, "metadata.labels")));
        for (name, labels) in own.chain(of_pods) {
            let label = |key: &str| text(&labels[format!("app.kubernetes.io/{key}")]);
            assert_eq!(label("name"), "cifar-ps", "{name}");
            assert_eq!(label("version"), env!("CARGO_PKG_VERSION"), "{name}");
            assert_eq!(label("managed-by"), "kustomize", "{name}");
            let is_second = rendering.name == "second-run";
            assert_eq!(label("instance") == "two", is_second, "{name}");
        }
    }
}

#[test]
fn only_workers_evaluator_and_scraper_reach_the_server() {
    for rendering in renderings() {
        let mut guarded = Vec::new();
        for policy in rendering.of_kind("NetworkPolicy") {
            let spec = &policy["spec"];
            assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
            let parts = selected(&rendering, &spec["podSelector"]);
            let mut admitted = Vec::new();
            for rule in items(&spec["ingress"]) {
                for from in items(&rule["from"]) {
                    let scraper = from["podSelector"].is_null();
                    let wanted = if scraper { 8080 } else { DEFAULT_PORT };
                    assert_eq!(rule["ports"][0]["port"], json!(wanted));
                    admitted.extend(match scraper {
                        true => vec!["scraper"],
                        false => selected(&rendering, &from["podSelector"]),
                    });
                }
            }
            match parts.as_slice() {
                ["server"] => {
                    let is_watched = rendering.of_kind("ServiceMonitor").next().is_some();
                    let expected: &[&str] = match is_watched {
                        true => &["worker", "evaluator", "scraper"],
                        false => &["worker", "evaluator"],
                    };
                    assert_eq!(admitted, expected, "{}", rendering.name);
                    assert_eq!(spec["egress"], json!([]));
                }
                _ => {
                    assert!(admitted.is_empty(), "{}", rendering.name);
                    reaches_names_and_server(&rendering, spec);
                }
            }
            guarded.extend(parts);
        }
        guarded.sort_unstable();
        assert_eq!(guarded, ["evaluator", "server", "worker"]);
    }
}

fn reaches_names_and_server(rendering: &Rendering, policy: &Value) {
    let mut reached = Vec::new();
    for rule in items(&policy["egress"]) {
        for to in items(&rule["to"]) {
            if !to["namespaceSelector"].is_null() {
                // A label that an overlay gives all selectors would find no name server.
                assert!(to["podSelector"].is_null(), "{}", rendering.name);
                assert_eq!(rule["ports"][0]["port"], 53);
            } else if to["ipBlock"].is_null() {
                reached.extend(selected(rendering, &to["podSelector"]));
                assert_eq!(rule["ports"][0]["port"], json!(DEFAULT_PORT));
            }
        }
    }
    assert_eq!(reached, ["server"]);
}

#[test]
fn pods_are_restricted() {
    for_each_job(|_, job| {
        let pod = job.pod();
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true, "{}", job.name);
        assert!(context["runAsUser"].as_u64().is_some_and(|user| user > 0));
        assert_eq!(at(context, "seccompProfile.type"), "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        for volume in items(&pod["volumes"]) {
            let kinds = ["emptyDir", "persistentVolumeClaim", "secret"];
            assert!(kinds.iter().any(|kind| !volume[kind].is_null()), "{volume}");
        }
    });
    for_each_container(|_, _, container| {
        let context = &container.spec["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(at(context, "capabilities.drop"), &json!(["ALL"]));
        assert!(context["privileged"].is_null() && context["capabilities"]["add"].is_null());
    });
}

#[test]
fn containers_ask_for_what_they_need() {
    for_each_container(|_, job, container| {
        let (name, resources) = (&container.name, &container.spec["resources"]);
        assert!(resources["requests"]["cpu"].is_string(), "{name}");
        let memory = &resources["requests"]["memory"];
        assert!(memory.is_string(), "{name}");
        assert_eq!(memory, &resources["limits"]["memory"], "{name}");
        // It would hold up the answers to all workers.
        let has_cpu_limit = !resources["limits"]["cpu"].is_null();
        assert!(!(has_cpu_limit && job.component() == "server"), "{name}");
    });
}

/// The class that Kubernetes puts a pod in, which says who goes first when a node is short of memory.
fn quality_of_service(job: &Job) -> &'static str {
    let containers = job.containers();
    let resources = |container: &Container, kind: &str, resource: &str| {
        container.spec["resources"][kind][resource].clone()
    };
    let is_guaranteed = containers.iter().all(|container| {
        ["cpu", "memory"].iter().all(|resource| {
            let limit = resources(container, "limits", resource);
            let request = resources(container, "requests", resource);
            limit.is_string() && (request.is_null() || request == limit)
        })
    });
    let asks_for_something = containers
        .iter()
        .any(|container| container.spec["resources"].is_object());
    match (is_guaranteed, asks_for_something) {
        (true, _) => "Guaranteed",
        (false, true) => "Burstable",
        (false, false) => "BestEffort",
    }
}

/// The server alone has no limit of CPU, which would hold up its answers.
#[test]
fn pods_that_compute_are_guaranteed_what_they_ask_for() {
    for_each_job(|_, job| {
        let expected = match job.component() {
            "server" => "Burstable",
            _ => "Guaranteed",
        };
        assert_eq!(quality_of_service(job), expected, "{}", job.name);
    });
}

#[test]
fn a_pod_that_failed_says_why() {
    for_each_container(|_, _, container| {
        let policy = &container.spec["terminationMessagePolicy"];
        assert_eq!(policy, "FallbackToLogsOnError", "{}", container.name);
    });
}

#[test]
fn everything_goes_by_ipv6_as_well() {
    for rendering in renderings() {
        let jobs = rendering.jobs();
        let server = jobs.iter().find(|job| job.component() == "server").unwrap();
        let arguments = server.containers()[0].arguments(rendering.settings());
        let addresses = ["--listen", "--http", "--health"].map(|flag| value_of(&arguments, flag));
        for address in addresses.into_iter().flatten() {
            assert!(
                address.starts_with("[::]:"),
                "{}: {address}",
                rendering.name
            );
        }
        let service = rendering.of_kind("Service").next().unwrap();
        assert_eq!(at(service, "spec.ipFamilyPolicy"), "PreferDualStack");
        let policies = rendering.of_kind("NetworkPolicy");
        let rules = policies.flat_map(|policy| items(at(policy, "spec.egress")));
        let blocks: Vec<Vec<&str>> = rules
            .map(|rule| items(&rule["to"]).filter_map(|to| at(to, "ipBlock.cidr").as_str()))
            .map(Iterator::collect)
            .filter(|blocks: &Vec<&str>| !blocks.is_empty())
            .collect();
        assert_eq!(blocks, [["0.0.0.0/0", "::/0"]], "{}", rendering.name);
    }
}

/// In a pod that has one GPU, that is number 0.
#[test]
fn a_worker_takes_the_gpu_that_its_pod_has() {
    for_each_container(|rendering, _, container| {
        let arguments = container.arguments(rendering.settings());
        let gpus = &container.spec["resources"]["limits"]["nvidia.com/gpu"];
        let has_gpu = gpus == "1";
        let takes_it = value_of(&arguments, "--gpu") == Some("0");
        assert_eq!(has_gpu, takes_it, "{}", container.name);
        let is_gpu_image = text(&container.spec["image"]).contains("cifar-worker-gpu");
        assert_eq!(has_gpu, is_gpu_image, "{}", container.name);
    });
}

/// Arguments and variables are seen by everybody who sees the process or the pod.
#[test]
fn no_secret_stands_in_an_argument_or_a_variable() {
    const SECRETS: [&str; 4] = ["token", "password", "secret", "credential"];
    for_each_container(|rendering, _, container| {
        for argument in container.arguments(rendering.settings()) {
            let flag = flag_of(&argument);
            let names_one = SECRETS.iter().any(|word| flag.contains(word));
            let is_file = flag.ends_with("-file");
            assert!(!names_one || is_file, "{}: {argument}", container.name);
        }
        for variable in items(&container.spec["env"]) {
            assert!(variable["valueFrom"].is_null(), "{variable}");
        }
        for from in items(&container.spec["envFrom"]) {
            assert!(from["secretRef"].is_null(), "{from}");
        }
    });
    for rendering in renderings() {
        assert!(rendering.of_kind("Secret").next().is_none());
        for setting in rendering.settings().as_object().unwrap().keys() {
            let lower = setting.to_lowercase();
            assert!(
                !SECRETS.iter().any(|word| lower.contains(word)),
                "{setting}"
            );
        }
    }
}

#[test]
fn what_a_pod_names_is_there() {
    for_each_job(|rendering, job| {
        let volumes: BTreeSet<&str> = items(&job.pod()["volumes"])
            .map(|volume| text(&volume["name"]))
            .collect();
        let mut mounted = BTreeSet::new();
        for container in job.containers() {
            for mount in items(&container.spec["volumeMounts"]) {
                mounted.insert(text(&mount["name"]));
            }
            let has_config = rendering.names_of_kind("ConfigMap");
            let config = &container.spec["envFrom"][0]["configMapRef"]["name"];
            assert!(has_config.contains(&text(config)), "{}", container.name);
            // A data set that only the first step may change.
            let data = items(&container.spec["volumeMounts"]).find(|mount| mount["name"] == "data");
            if let Some(data) = data {
                let is_read_only = data["readOnly"] == true;
                assert_eq!(is_read_only, !container.is_first_step, "{}", container.name);
            }
        }
        assert_eq!(volumes, mounted, "{}", job.name);
        let secrets: Vec<&str> = rendering
            .of_kind("Certificate")
            .map(|certificate| text(at(certificate, "spec.secretName")))
            .collect();
        for volume in items(&job.pod()["volumes"]) {
            if let Some(secret) = at(volume, "secret.secretName").as_str() {
                assert!(secrets.contains(&secret), "{}: {secret}", job.name);
            }
            if let Some(claim) = at(volume, "persistentVolumeClaim.claimName").as_str() {
                let claims = rendering.names_of_kind("PersistentVolumeClaim");
                assert!(claims.contains(&claim), "{}: {claim}", job.name);
            }
        }
    });
}

#[test]
fn the_server_alone_has_the_train_dir_and_time_to_save_it() {
    for_each_job(|rendering, job| {
        let is_server = job.component() == "server";
        let claims = items(&job.pod()["volumes"])
            .filter_map(|volume| at(volume, "persistentVolumeClaim.claimName").as_str());
        let has_it = claims
            .into_iter()
            .any(|claim| claim.starts_with("cifar-train-dir"));
        assert_eq!(has_it, is_server, "{}", job.name);
        for claim in rendering.of_kind("PersistentVolumeClaim") {
            let is_train_dir = text(at(claim, "metadata.name")).starts_with("cifar-train-dir");
            let one_pod = at(claim, "spec.accessModes") == &json!(["ReadWriteOncePod"]);
            assert_eq!(one_pod, is_train_dir, "{claim}");
        }
        if is_server {
            assert!(job.pod()["terminationGracePeriodSeconds"].as_u64() >= Some(60));
            let arguments = job.containers()[0].arguments(rendering.settings());
            assert!(
                value_of(&arguments, "--train-dir")
                    .unwrap()
                    .starts_with("/train/")
            );
        }
    });
}

#[test]
fn certificates_take_the_place_of_what_goes_unencrypted() {
    for rendering in renderings() {
        let has_certificates = rendering.of_kind("Certificate").next().is_some();
        for job in rendering.jobs() {
            let container = job.containers().pop().unwrap();
            let arguments = container.arguments(rendering.settings());
            let has = |flag: &str| arguments.iter().any(|argument| flag_of(argument) == flag);
            let is_server = job.component() == "server";
            assert_eq!(has("--insecure"), is_server && !has_certificates);
            assert_eq!(has("--tls-cert"), has_certificates, "{}", job.name);
            assert_eq!(has("--tls-key"), has_certificates, "{}", job.name);
            let authority = if is_server {
                "--tls-client-ca"
            } else {
                "--tls-ca"
            };
            assert_eq!(has(authority), has_certificates, "{}", job.name);
        }
        if has_certificates {
            let service = rendering.names_of_kind("Service")[0];
            let named = rendering.of_kind("Certificate").any(|certificate| {
                items(at(certificate, "spec.dnsNames")).any(|name| name == service)
            });
            assert!(named, "{}: no certificate for {service}", rendering.name);
        }
    }
}

/// What a certificate's owner may do stands in it as the organization.
#[test]
fn each_part_may_do_what_it_is_for_and_no_pod_is_admin() {
    for rendering in renderings() {
        let certificates: Vec<&Value> = rendering.of_kind("Certificate").collect();
        if certificates.is_empty() {
            continue;
        }
        let of_secret = |secret: &str| {
            let mut found = certificates.iter().map(|certificate| &certificate["spec"]);
            found.find(|spec| spec["secretName"] == secret).unwrap()
        };
        for job in rendering.jobs() {
            let mut secrets = items(&job.pod()["volumes"])
                .filter_map(|volume| at(volume, "secret.secretName").as_str());
            let certificate = of_secret(secrets.next().unwrap());
            assert_eq!(secrets.next(), None, "{}", job.name);
            let (usage, organizations) = match job.component() {
                "server" => ("server auth", Value::Null),
                "worker" => ("client auth", json!(["worker"])),
                _ => ("client auth", json!(["viewer"])),
            };
            assert_eq!(at(certificate, "subject.organizations"), &organizations);
            assert_eq!(certificate["usages"], json!(["digital signature", usage]));
        }
        for monitor in rendering.of_kind("ServiceMonitor") {
            let endpoint = &at(monitor, "spec.endpoints")[0];
            assert_eq!(endpoint["scheme"], "https", "{}", rendering.name);
            let tls = &endpoint["tlsConfig"];
            let secret = text(at(tls, "keySecret.name"));
            for part in ["ca", "cert"] {
                assert_eq!(at(&tls[part], "secret.name"), secret);
            }
            let scraper = of_secret(secret);
            assert_eq!(at(scraper, "subject.organizations"), &json!(["viewer"]));
            let service = rendering.names_of_kind("Service")[0];
            assert_eq!(tls["serverName"], service);
        }
        let admin = of_secret("cifar-admin-tls");
        assert_eq!(at(admin, "subject.organizations"), &json!(["admin"]));
    }
}

#[test]
fn a_set_ends_with_its_server_and_waits_in_its_queue() {
    for rendering in renderings() {
        for set in rendering.of_kind("JobSet") {
            assert!(rendering.of_kind("Job").next().is_none());
            let spec = &set["spec"];
            assert_eq!(
                spec["successPolicy"]["targetReplicatedJobs"],
                json!(["server"])
            );
            for job in items(&spec["replicatedJobs"]) {
                // The set would make a Job that is gone again.
                assert!(at(job, "template.spec.ttlSecondsAfterFinished").is_null());
                let waits = &job["dependsOn"][0]["name"];
                assert_eq!(waits == "server", job["name"] != "server");
            }
            let queue = &set["metadata"]["labels"]["kueue.x-k8s.io/queue-name"];
            assert_eq!(queue == "cifar", rendering.name == "kueue");
        }
    }
}

/// JobSet refuses actions that its default feature gates leave out. The first rule that matches counts.
#[test]
fn a_default_jobset_takes_the_failure_policy_and_gives_hopeless_runs_up() {
    const DEFAULT: [&str; 3] = [
        "FailJobSet",
        "RestartJobSet",
        "RestartJobSetAndIgnoreMaxRestarts",
    ];
    for rendering in renderings() {
        for set in rendering.of_kind("JobSet") {
            let rules: Vec<&Value> = items(at(set, "spec.failurePolicy.rules")).collect();
            for rule in &rules {
                assert!(DEFAULT.contains(&text(&rule["action"])), "{rule}");
            }
            let first = rules[0];
            assert_eq!(first["action"], "FailJobSet", "{}", rendering.name);
            assert_eq!(first["onJobFailureReasons"], json!(["PodFailurePolicy"]));
            assert!(first["targetReplicatedJobs"].is_null(), "{first}");
            for job in rendering.jobs() {
                let never_fails = job.spec["backoffLimit"] == i32::MAX;
                assert_eq!(never_fails, job.component() == "evaluator", "{}", job.name);
            }
        }
    }
}

#[test]
fn every_image_has_a_recipe() {
    for_each_container(|_, _, container| {
        let image = text(&container.spec["image"]);
        let name = image.rsplit('/').next().unwrap();
        let name = name.split(':').next().unwrap();
        let (file, target) = match name {
            "cifar-ps" => ("server.Dockerfile", "FROM scratch"),
            "cifar-worker" => ("worker.Dockerfile", "AS cpu"),
            "cifar-worker-gpu" => ("worker.Dockerfile", "AS gpu"),
            _ => panic!("{} runs {image}, which nothing makes", container.name),
        };
        let recipe = fs::read_to_string(deploy().join("images").join(file)).unwrap();
        assert!(recipe.contains(target), "{file}");
        let program = text(&container.spec["command"][0]);
        let place = match program.strip_prefix("/opt/cifar/bin/") {
            Some(program) => program,
            None => program.strip_prefix('/').unwrap(),
        };
        assert!(recipe.contains(place), "{file} does not make {program}");
        assert!(recipe.contains("USER 65532:65532"), "{file}");
    });
}

#[test]
fn manifests_are_valid_and_a_misspelt_field_is_not() {
    if !has_kubectl() {
        return;
    }
    let validate = Command::new(deploy().join("check/validate")).output();
    let output = validate.unwrap();
    let words = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    if words[1].contains("No matching distribution") {
        skip("PYTHON", "the validators cannot be fetched");
        return;
    }
    assert!(output.status.success(), "{}\n{}", words[0], words[1]);
}
