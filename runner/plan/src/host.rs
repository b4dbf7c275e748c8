//! Host documents (`kind = "host"`), judged as far as a document can be: what it names is there, and what it promises adds up.
//! Whether the machine really has it is for those who apply it.
//!
//! | module | what it does |
//! |---|---|
//! | [`cores`] | core lists, pools, the part for exclusive cells |
//! | [`networks`] | subnets and their overlaps |

pub(crate) mod cores;
mod networks;

use std::collections::HashMap;

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::manifest::{Kind, Manifest, Span, Template};
use hotcell_schema::stage::STAGE_TYPES;

use crate::diagnostics::{Code, Diagnostic};
use crate::load::Loaded;
use crate::profiles::Profiles;
use crate::tree::Node;

/// Engines that a later version brings: a host may allow them already.
const LATER_ENGINES: &[&str] = &["qemu-system/linux"];
/// How an image can be built.
const BUILDS: &[&str] = &["debian"];
/// Keys that only an experiment has.
const EXPERIMENT_KEYS: &[&str] = &[
    "seed", "sources", "samples", "rules", "stages", "expect", "golden",
];
/// More processors than QEMU's machines take.
const MAX_VCPUS: u32 = 255;

/// What a host document holds, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Cores of the pool, where it is given.
    pub pool: Option<usize>,
    /// Users.
    pub users: usize,
    /// Images.
    pub images: usize,
    /// Networks.
    pub networks: usize,
    /// Templates.
    pub templates: usize,
}

/// Judges a host document. What is wrong is added to the diagnostics; nothing comes back when it is no host document, or when
/// anything is wrong.
pub fn check(loaded: &mut Loaded, profiles: &Profiles) -> Option<Summary> {
    let manifest = loaded.manifest.take()?;
    let mut problems = Vec::new();
    let summary = (manifest.kind == Kind::Host).then(|| {
        let mut host = Host {
            manifest: &manifest,
            tree: &loaded.tree,
            profiles,
            problems: &mut problems,
        };
        host.all()
    });
    loaded.manifest = Some(manifest);
    loaded.diagnostics.append(&mut problems);
    loaded.settle();
    summary.filter(|_| !loaded.has_errors())
}

struct Host<'a> {
    manifest: &'a Manifest,
    tree: &'a Node,
    profiles: &'a Profiles,
    problems: &'a mut Vec<Diagnostic>,
}

impl Host<'_> {
    fn all(&mut self) -> Summary {
        for key in EXPERIMENT_KEYS {
            if self.tree.get(key).is_some() {
                let span = self.tree.key_span(&[key]);
                self.problems.push(
                    Diagnostic::error(
                        Code::WrongKind,
                        span,
                        format!("`{key}` belongs to an experiment, and this is a host"),
                    )
                    .help("keep experiments in documents of their own"),
                );
            }
        }
        let pool = cores::check(self.manifest.cores.as_ref(), self.tree, self.problems);
        self.users(pool.as_ref());
        self.engines();
        self.images();
        networks::check(&self.manifest.networks, self.tree, self.problems);
        self.templates(pool.as_ref());
        Summary {
            pool: pool.map(|pool| pool.cores),
            users: self.manifest.users.len(),
            images: self.manifest.images.len(),
            networks: self.manifest.networks.len(),
            templates: self.manifest.templates.len(),
        }
    }

    /// Where a value stands; its key, where it is a table or absent.
    fn at(&self, path: &[&str]) -> Span {
        match self.tree.at(path) {
            Some(node) if node.as_table().is_none() => node.span,
            _ => self.tree.key_span(path),
        }
    }

    fn error(&mut self, code: Code, span: Span, title: String, help: &str) {
        self.problems
            .push(Diagnostic::error(code, span, title).help(help));
    }

    fn users(&mut self, pool: Option<&cores::Pool>) {
        let mut uids: HashMap<u32, &str> = HashMap::new();
        let users = &self.manifest.users;
        for (name, user) in users {
            if let Some(other) = uids.insert(user.uid, name) {
                let there = self.at(&["users", other, "uid"]);
                let here = self.at(&["users", name, "uid"]);
                self.problems.push(
                    Diagnostic::error(
                        Code::Users,
                        here,
                        format!(
                            "`{other}` and `{name}` are one user: both have the uid {}",
                            user.uid
                        ),
                    )
                    .also(there, format!("the uid of `{other}`"))
                    .help("the host knows users by their uid: give each its own, or take one of them out"),
                );
            }
            let nothing = [
                ("cells", user.quota.cells == Some(0)),
                ("memory", user.quota.memory.is_some_and(|memory| memory.0 == 0)),
                ("cpu-time", user.quota.cpu_time.is_some_and(|time| time.0 == 0)),
                ("wall-time", user.quota.wall_time.is_some_and(|time| time.0 == 0)),
                ("output", user.quota.output.is_some_and(|bytes| bytes.0 == 0)),
                ("stored", user.quota.stored.is_some_and(|bytes| bytes.0 == 0)),
            ];
            for (key, none) in nothing {
                if none {
                    let span = self.at(&["users", name, "quota", key]);
                    let title = format!("`{name}` may have no {key} at all, so nothing of theirs can run");
                    self.error(
                        Code::Quota,
                        span,
                        title,
                        "leave the key out for no bound, or take the user out",
                    );
                }
            }
            let (Some(wanted), Some(pool)) = (user.quota.exclusive_cores, pool) else {
                continue;
            };
            if wanted as usize > pool.exclusive {
                let span = self.at(&["users", name, "quota", "exclusive-cores"]);
                let text = format!(
                    "the pool has {} cores, of which {} may be exclusive",
                    pool.cores, pool.exclusive
                );
                self.problems.push(
                    Diagnostic::error(
                        Code::Quota,
                        span,
                        format!(
                            "`{name}` may hold {wanted} exclusive cores, and the host has {}",
                            pool.exclusive
                        ),
                    )
                    .also(self.at(&["cores", "pool"]), text)
                    .help("ask for less, or enlarge `cores.pool` or `cores.exclusive-max`"),
                );
            }
        }
    }

    fn engines(&mut self) {
        let Some(engines) = &self.manifest.engines else {
            return;
        };
        let own = STAGE_TYPES.iter().filter(|stage_type| stage_type.is_limited());
        let known: Vec<&str> = own
            .map(|stage_type| stage_type.name)
            .chain(LATER_ENGINES.iter().copied())
            .collect();
        let places = match self.tree.at(&["engines", "allow"]).map(|list| &list.value) {
            Some(crate::tree::Value::List(items)) => items.iter().map(|item| item.span).collect(),
            _ => Vec::new(),
        };
        for (index, name) in engines.allow.iter().enumerate() {
            if known.contains(&name.as_str()) {
                continue;
            }
            let span = places.get(index).copied().unwrap_or_default();
            let title = format!("there is no engine `{name}`");
            self.problems
                .push(unknown(Code::UnknownPart, span, title, name, &known));
        }
    }

    /// The profile of a name; it is told where there is none.
    fn profile(&mut self, name: &str, path: &[&str]) -> Option<&ArchProfile> {
        if self.profiles.find(name).is_none() {
            let span = self.at(path);
            let all: Vec<&str> = self
                .profiles
                .all()
                .iter()
                .map(|profile| profile.name.as_str())
                .collect();
            let mut problem = Diagnostic::error(
                Code::UnknownProfile,
                span,
                format!("there is no arch profile `{name}`"),
            )
            .did_you_mean(name, self.profiles.names());
            if problem.help.is_none() {
                problem = problem.help(format!("arch profiles: {}", all.join(", ")));
            }
            self.problems.push(problem);
        }
        self.profiles.find(name)
    }

    fn images(&mut self) {
        let images = &self.manifest.images;
        for (name, image) in images {
            self.profile(&image.arch, &["images", name, "arch"]);
            let key = self.tree.key_span(&["images", name]);
            match (&image.build, &image.path) {
                (None, None) => self.error(
                    Code::MissingKey,
                    key,
                    format!("the image `{name}` says neither how it is built nor where it is"),
                    "write `build = \"debian\"` or `path = \"image.qcow2\"`",
                ),
                (Some(_), Some(_)) => self.error(
                    Code::Invalid,
                    self.at(&["images", name, "path"]),
                    format!("the image `{name}` is built, and is a file: only one of them can be"),
                    "keep `build` or `path`",
                ),
                (Some(build), None) if !BUILDS.contains(&build.as_str()) => {
                    let span = self.at(&["images", name, "build"]);
                    let title = format!("images cannot be built as `{build}`");
                    self.problems
                        .push(unknown(Code::UnknownPart, span, title, build, BUILDS));
                }
                _ => {}
            }
        }
    }

    fn templates(&mut self, pool: Option<&cores::Pool>) {
        let manifest = self.manifest;
        for (name, template) in &manifest.templates {
            let path = |key| ["templates", name.as_str(), key];
            if let Some(image) = &template.image {
                match manifest.images.get(image) {
                    // It is there, and has a mistake of its own.
                    None if self.tree.at(&["images", image]).is_some() => {}
                    None => {
                        let known: Vec<&str> = manifest.images.keys().map(String::as_str).collect();
                        let title = format!("there is no image `{image}`");
                        let span = self.at(&path("image"));
                        self.problems
                            .push(unknown(Code::UnknownPart, span, title, image, &known));
                    }
                    Some(found) => {
                        let name_of = |arch: &str| self.profiles.find(arch).map(|profile| &profile.name);
                        let (own, its) = (name_of(&template.arch), name_of(&found.arch));
                        if own.is_some() && its.is_some() && own != its {
                            let title = format!(
                                "the template is {}, and its image `{image}` is {}",
                                template.arch, found.arch
                            );
                            let there = self.at(&["images", image, "arch"]);
                            self.problems.push(
                                Diagnostic::error(Code::Template, self.at(&path("image")), title)
                                    .also(there, "the image's architecture")
                                    .help("take an image of the template's own architecture"),
                            );
                        }
                    }
                }
            }
            if let Some(network) = &template.network
                && self.tree.at(&["networks", network]).is_none()
            {
                let known: Vec<&str> = manifest.networks.keys().map(String::as_str).collect();
                let title = format!("there is no network `{network}`");
                let span = self.at(&path("network"));
                self.problems
                    .push(unknown(Code::UnknownPart, span, title, network, &known));
            }
            self.vcpus(name, template, pool);
            self.machine(name, template);
        }
    }

    fn vcpus(&mut self, name: &str, template: &Template, pool: Option<&cores::Pool>) {
        let Some(vcpus) = template.vcpus else { return };
        let span = self.at(&["templates", name, "vcpus"]);
        let most = pool.map_or(MAX_VCPUS as usize, |pool| pool.cores.min(MAX_VCPUS as usize));
        if vcpus == 0 {
            let title = format!("the template `{name}` has no processor");
            self.error(Code::Template, span, title, "write at least `vcpus = 1`");
        } else if vcpus as usize > most {
            let title = format!("the template `{name}` has {vcpus} processors, and the host can give {most}");
            let help = "a cell takes a core of the pool for each of its processors";
            self.error(Code::Template, span, title, help);
        }
    }

    /// What the arch profile says of the machine.
    fn machine(&mut self, name: &str, template: &Template) {
        let path = |key| ["templates", name, key];
        let Some(profile) = self.profile(&template.arch, &path("arch")).cloned() else {
            return;
        };
        let system = profile.qemu.as_ref().filter(|qemu| qemu.system.is_some());
        let Some(qemu) = system else {
            let title = format!("the arch profile `{}` knows no system guests", profile.name);
            let span = self.at(&path("arch"));
            return self.error(
                Code::Template,
                span,
                title,
                "run its samples with an emulator of programs",
            );
        };
        if let Some(machine) = &qemu.machine {
            // Options of the machine follow its name after a comma.
            let base = machine.split(',').next().unwrap_or(machine);
            if template.kind != base && template.kind != *machine {
                let title = format!("`{}` is no kind of machine of `{}`", template.kind, profile.name);
                let span = self.at(&path("kind"));
                self.problems
                    .push(unknown(Code::Template, span, title, &template.kind, &[base]));
            }
        }
        if let (Some(memory), Some((least, most))) = (template.memory, qemu.memory_range) {
            let mib = |count: u32| u64::from(count) << 20;
            if !(mib(least)..=mib(most)).contains(&memory.0) {
                let title = format!(
                    "{memory} of memory is outside of what `{}` can have: {least}MiB to {most}MiB",
                    profile.name
                );
                let span = self.at(&path("memory"));
                self.error(
                    Code::Template,
                    span,
                    title,
                    "the range is that of the arch profile (`qemu.memory-range`)",
                );
            }
        }
    }
}

/// A name that there is not.
fn unknown(code: Code, span: Span, title: String, wrong: &str, known: &[&str]) -> Diagnostic {
    let problem = Diagnostic::error(code, span, title).did_you_mean(wrong, known.iter().copied());
    match problem.help {
        Some(_) => problem,
        None if known.is_empty() => problem.help("the document has none"),
        None => problem.help(format!("there are: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Options, load_text};

    #[test]
    fn a_host_that_adds_up_is_summed_up() {
        let text = "hotcell: 1\nkind: host\n\
            cores: { control: 0, chores: 1, pool: \"2-7,10-15\", slice: 10ms, exclusive-max: 50%, isolation: cpuset }\n\
            users: { ci: { role: user, uid: 1501, quota: { cells: 8, exclusive-cores: 6, memory: 16GiB } }, soc: { role: admin, uid: 1500 } }\n\
            engines: { allow: [unicorn/linux, qemu-user/linux, qemu-system/linux] }\n\
            images: { deb12-arm64: { build: debian, arch: aarch64, layers: [base, apps/tools.yaml] } }\n\
            networks: { isolated-arm64: { backend: libvirt, mode: isolated, subnet: 10.66.2.0/24 } }\n\
            templates: { arm64-lab: { kind: virt, arch: arm64, image: deb12-arm64, memory: 2GiB, vcpus: 2, network: isolated-arm64 } }\n";
        let mut loaded = load_text("host.yaml".as_ref(), text, &Options::default());
        let summary = check(&mut loaded, &Profiles::shipped());
        let told: Vec<_> = loaded
            .diagnostics
            .iter()
            .map(|d| d.plain(&loaded.sources))
            .collect();
        let wanted = Summary {
            pool: Some(12),
            users: 2,
            images: 1,
            networks: 1,
            templates: 1,
        };
        assert_eq!(summary, Some(wanted), "{told:?}");
    }
}
