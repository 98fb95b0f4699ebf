//! The manifests in `deploy/`, as kustomize makes them of their parts, and what stands in them.
//!
//! The base is whole as it is written; overlays are rendered where there is a `kubectl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::program::skip;

/// Kinds of documents that components add to the base's.
const OF_COMPONENTS: [&str; 5] = [
    "Certificate",
    "Issuer",
    "JobSet",
    "PodDisruptionBudget",
    "ServiceMonitor",
];

/// What is applied at once: the base, or an overlay.
#[derive(Debug)]
pub(crate) struct Rendering {
    pub(crate) name: String,
    pub(crate) documents: Vec<Value>,
}

/// What a Job says of its pods, whether it stands by itself or in a JobSet.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Of the Job or its part of the set, with the rendering: to be found by.
    pub(crate) name: String,
    pub(crate) spec: &'a Value,
}

/// A container of a Job's pods, or one of their first steps.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    pub(crate) name: String,
    pub(crate) spec: &'a Value,
    pub(crate) is_first_step: bool,
}

/// Follows a path of keys; null where it leads nowhere.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, key| &value[key])
}

/// The items of a list; none where there is no list.
pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The text, which must be one.
#[track_caller]
pub(crate) fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The base, and every overlay where there is a `kubectl` to render it.
pub(crate) fn renderings() -> Vec<Rendering> {
    let mut renderings = vec![base()];
    if has_kubectl() {
        for entry in fs::read_dir(deploy().join("overlays")).unwrap() {
            renderings.push(overlay(&entry.unwrap().path()));
        }
        // So that no test looks in vain for what it is about.
        for kind in OF_COMPONENTS {
            let has_it = |rendering: &Rendering| rendering.of_kind(kind).next().is_some();
            assert!(renderings.iter().any(has_it), "no overlay has a {kind}");
        }
    }
    renderings
}

/// A second run in the namespace of the first, with everything that can be added to one; takes `kubectl`.
pub(crate) fn second_run_with_everything() -> Rendering {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let second = read(&deploy().join("overlays/second-run/kustomization.yaml"));
    // Kustomize takes no absolute paths. From the root on, one leads there whatever the depth.
    let depth = folder.path().canonicalize().unwrap().components().count() - 1;
    let deploy = deploy().canonicalize().unwrap();
    let deploy = format!(
        "{}{}",
        "../".repeat(depth),
        &deploy.display().to_string()[1..]
    );
    let mut kustomization = second.replace("../../", &format!("{deploy}/"));
    kustomization.push_str("components:\n");
    for component in ["gpu", "shared-data", "monitoring", "pdb", "jobset", "kueue"] {
        kustomization.push_str(&format!("  - {deploy}/components/{component}\n"));
    }
    fs::write(folder.path().join("kustomization.yaml"), kustomization).unwrap();
    overlay(folder.path())
}

/// Whether overlays can be rendered here.
pub(crate) fn has_kubectl() -> bool {
    let version = Command::new("kubectl")
        .args(["version", "--client"])
        .output();
    let has_one = version.is_ok_and(|output| output.status.success());
    if !has_one {
        skip("KUBECTL", "overlays: there is no kubectl to render them");
    }
    has_one
}

fn base() -> Rendering {
    let folder = deploy().join("base");
    let parts = documents_of(&folder.join("kustomization.yaml"));
    let mut documents: Vec<Value> = items(&parts[0]["resources"])
        .flat_map(|resource| documents_of(&folder.join(text(resource))))
        .collect();
    // What kustomize does with the labels of the base's only component.
    assert_eq!(parts[0]["components"], json!(["../components/labels"]));
    let component = documents_of(&folder.join("../components/labels/kustomization.yaml"));
    let labels = &component[0]["labels"][0]["pairs"];
    for document in &mut documents {
        add_labels(&mut document["metadata"], labels);
        if document["kind"] == "Job" {
            add_labels(&mut document["spec"]["template"]["metadata"], labels);
        }
    }
    let name = "base".to_owned();
    Rendering { name, documents }
}

fn add_labels(metadata: &mut Value, labels: &Value) {
    for (key, label) in labels.as_object().unwrap() {
        metadata["labels"][key] = label.clone();
    }
}

fn overlay(folder: &Path) -> Rendering {
    let output = Command::new("kubectl")
        .arg("kustomize")
        .arg(folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", folder.display());
    Rendering {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        documents: documents_in(&String::from_utf8(output.stdout).unwrap()),
    }
}

fn documents_of(path: &Path) -> Vec<Value> {
    documents_in(&read(path))
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn documents_in(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Every YAML file of `deploy/`.
pub(crate) fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(&deploy(), &mut files);
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    assert!(files.len() > 15, "{files:?}");
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

impl Rendering {
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let is_kind = move |document: &&Value| document["kind"] == kind;
        self.documents.iter().filter(is_kind)
    }

    pub(crate) fn names_of_kind<'a>(&'a self, kind: &'a str) -> Vec<&'a str> {
        let names = self.of_kind(kind);
        names
            .map(|document| text(at(document, "metadata.name")))
            .collect()
    }

    /// Its Jobs, those of a JobSet among them.
    pub(crate) fn jobs(&self) -> Vec<Job<'_>> {
        let alone = self
            .of_kind("Job")
            .map(|job| (&job["metadata"]["name"], &job["spec"]));
        let in_sets = self
            .of_kind("JobSet")
            .flat_map(|set| items(at(set, "spec.replicatedJobs")))
            .map(|job| (&job["name"], at(job, "template.spec")));
        let jobs: Vec<Job> = alone
            .chain(in_sets)
            .map(|(name, spec)| Job {
                name: format!("{}/{}", self.name, text(name)),
                spec,
            })
            .collect();
        assert_eq!(jobs.len(), 3, "{}: server, workers, evaluator", self.name);
        jobs
    }

    /// The one place of configuration.
    pub(crate) fn settings(&self) -> &Value {
        let mut maps = self
            .of_kind("ConfigMap")
            .filter(|map| text(at(map, "metadata.name")).starts_with("cifar-run"));
        let settings = maps.next().unwrap();
        assert!(maps.next().is_none(), "{} has two places", self.name);
        &settings["data"]
    }
}

impl<'a> Job<'a> {
    pub(crate) fn pod(&self) -> &'a Value {
        at(self.spec, "template.spec")
    }

    pub(crate) fn labels(&self) -> &'a Value {
        at(self.spec, "template.metadata.labels")
    }

    /// `server`, `worker` or `evaluator`.
    pub(crate) fn component(&self) -> &'a str {
        text(&self.labels()["app.kubernetes.io/component"])
    }

    pub(crate) fn containers(&self) -> Vec<Container<'a>> {
        let list = |key: &'static str| items(&self.pod()[key]).map(move |spec| (key, spec));
        list("initContainers")
            .chain(list("containers"))
            .map(|(key, spec)| Container {
                name: format!("{}/{}", self.name, text(&spec["name"])),
                spec,
                is_first_step: key == "initContainers",
            })
            .collect()
    }
}

impl Container<'_> {
    /// The program that it starts.
    pub(crate) fn program(&self) -> &str {
        let command = text(&self.spec["command"][0]);
        command.rsplit('/').next().unwrap()
    }

    /// What it gives the program, with the settings put in.
    pub(crate) fn arguments(&self, settings: &Value) -> Vec<String> {
        items(&self.spec["args"])
            .map(|argument| self.filled_in(text(argument), settings))
            .collect()
    }

    fn filled_in(&self, argument: &str, settings: &Value) -> String {
        let Some((before, rest)) = argument.split_once("$(") else {
            return argument.to_owned();
        };
        let (variable, after) = rest.split_once(')').unwrap();
        let own = items(&self.spec["env"]).find(|own| own["name"] == variable);
        let value = own.map_or(&settings[variable], |own| &own["value"]);
        assert!(
            value.is_string(),
            "{}: nothing sets {variable} of {argument}",
            self.name
        );
        format!("{before}{}{after}", text(value))
    }
}
