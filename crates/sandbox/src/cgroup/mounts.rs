//! Where the control group file systems are and where in them this process is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// What the walls need of version 1, in the order cells join them.
pub(super) const V1_CONTROLLERS: [&str; 5] = ["memory", "cpu", "pids", "freezer", "cpuacct"];
/// What the walls need of version 2; the freezer and CPU accounting come with every group.
pub(super) const V2_CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// This host's hierarchies, as this process sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    V1(V1Layout),
    V2(V2Layout),
}

/// For each of [`V1_CONTROLLERS`] the mount point and this process's own group. Several may share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct V1Layout {
    pub(super) hierarchies: [Hierarchy; 5],
}

/// The unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct V2Layout {
    pub(super) hierarchy: Hierarchy,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) mount: PathBuf,
    /// The group this process is in, at or below `mount`.
    pub(super) own: PathBuf,
}

impl Layout {
    pub(super) fn of_this_process() -> Result<Self, CgroupError> {
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|source| CgroupError::Io { what: "read", path: path.into(), source })
        };
        let found = Found::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        // A hybrid host mounts the unified hierarchy too, without controllers in it.
        let unified = found.unified.clone().filter(|hierarchy| {
            let listed = std::fs::read_to_string(hierarchy.mount.join("cgroup.controllers")).unwrap_or_default();
            V2_CONTROLLERS.iter().all(|wanted| listed.split_whitespace().any(|name| name == *wanted))
        });
        found.layout(unified)
    }

    /// Every distinct mount point.
    pub(super) fn mounts(&self) -> Vec<PathBuf> {
        let mut mounts: Vec<_> = match self {
            Self::V1(layout) => layout.hierarchies.iter().map(|hierarchy| hierarchy.mount.clone()).collect(),
            Self::V2(layout) => vec![layout.hierarchy.mount.clone()],
        };
        mounts.sort();
        mounts.dedup();
        mounts
    }
}

#[derive(Debug, Default)]
struct Found {
    /// Version 1 hierarchies by controller.
    controllers: BTreeMap<String, Hierarchy>,
    unified: Option<Hierarchy>,
}

impl Found {
    fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut own_paths = BTreeMap::new();
        let mut own_unified = None;
        for line in cgroup.lines() {
            // `4:cpu,cpuacct:/user.slice`, `0::/user.slice`
            let mut fields = line.splitn(3, ':');
            let (Some(id), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
            if id == "0" && names.is_empty() {
                own_unified = Some(path);
            }
            for name in names.split(',').filter(|name| !name.is_empty()) {
                own_paths.insert(name, path);
            }
        }
        let mut found = Self::default();
        for line in mountinfo.lines() {
            // id parent major:minor root mount-point options … - type source super-options
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let before: Vec<_> = before.split(' ').collect();
            let after: Vec<_> = after.split(' ').collect();
            let (Some(root), Some(mount), Some(kind)) = (before.get(3), before.get(4), after.first()) else { continue };
            let mount = PathBuf::from(unescape(mount));
            let place = |own: Option<&&str>| Hierarchy { own: own_group(&mount, root, own.copied()), mount: mount.clone() };
            match *kind {
                "cgroup2" if found.unified.is_none() => found.unified = Some(place(own_unified.as_ref())),
                "cgroup" => {
                    for name in after.get(2).copied().unwrap_or_default().split(',') {
                        if V1_CONTROLLERS.contains(&name) {
                            found.controllers.entry(name.to_owned()).or_insert_with(|| place(own_paths.get(name)));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn layout(mut self, unified: Option<Hierarchy>) -> Result<Layout, CgroupError> {
        if let Some(hierarchy) = unified {
            return Ok(Layout::V2(V2Layout { hierarchy }));
        }
        let mut hierarchies = Vec::with_capacity(V1_CONTROLLERS.len());
        for controller in V1_CONTROLLERS {
            hierarchies.push(self.controllers.remove(controller).ok_or(CgroupError::NoController { controller })?);
        }
        let hierarchies = hierarchies.try_into().expect("one was pushed for each controller");
        Ok(Layout::V1(V1Layout { hierarchies }))
    }
}

/// Where the group `own` of a hierarchy is, whose part from `root` on is mounted at `mount`. What lies outside of the
/// mounted part (a process moved into a container from outside) counts as its top.
fn own_group(mount: &Path, root: &str, own: Option<&str>) -> PathBuf {
    let inside = own.and_then(|own| Path::new(own).strip_prefix(root).ok());
    match inside {
        Some(inside) if inside.components().all(|part| matches!(part, std::path::Component::Normal(_))) => {
            let group = mount.join(inside);
            if inside.as_os_str().is_empty() { mount.to_path_buf() } else { group }
        }
        _ => mount.to_path_buf(),
    }
}

/// Mount points write blanks and backslashes as `\040` and the like.
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        match escape.get(1..4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &escape[4..];
            }
            None => {
                out.push('\\');
                rest = &escape[1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
39 31 0:36 /docker/f00 /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn version_1_controllers_are_found_where_they_are_mounted() {
        let own = "8:pids:/docker/f00/a\n4:memory:/session/1\n2:cpu,cpuacct:/\n0::/\n";
        let Layout::V1(layout) = Found::parse(HYBRID, own).layout(None).unwrap() else { panic!("not version 1") };
        let own: Vec<_> = layout.hierarchies.iter().map(|hierarchy| hierarchy.own.to_str().unwrap()).collect();
        assert_eq!(
            own,
            [
                "/sys/fs/cgroup/memory/session/1",
                "/sys/fs/cgroup/cpu,cpuacct",
                "/sys/fs/cgroup/pids/a",
                "/sys/fs/cgroup/freezer",
                "/sys/fs/cgroup/cpu,cpuacct",
            ]
        );
        assert_eq!(Layout::V1(layout).mounts().len(), 4);
    }

    #[test]
    fn a_missing_controller_is_named() {
        let without: String = HYBRID.lines().filter(|line| !line.contains("freezer")).map(|l| format!("{l}\n")).collect();
        let error = Found::parse(&without, "").layout(None).unwrap_err();
        assert!(matches!(error, CgroupError::NoController { controller: "freezer" }));
    }

    #[test]
    fn the_unified_hierarchy_is_preferred_when_it_has_controllers() {
        let found = Found::parse("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/system.slice/dunlin.service\n");
        let unified = found.unified.clone();
        let Layout::V2(layout) = found.layout(unified).unwrap() else { panic!("not version 2") };
        assert_eq!(layout.hierarchy.own, Path::new("/sys/fs/cgroup/system.slice/dunlin.service"));
    }

    #[test]
    fn a_group_outside_of_the_mounted_part_counts_as_the_top() {
        let mount = Path::new("/m");
        assert_eq!(own_group(mount, "/docker/a", Some("/docker/b")), mount);
        assert_eq!(own_group(mount, "/", Some("/../x")), mount);
        assert_eq!(own_group(mount, "/", None), mount);
        assert_eq!(own_group(mount, "/", Some("/a/b")), Path::new("/m/a/b"));
    }

    #[test]
    fn octal_escapes_in_mount_points_are_read() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\04"), r"/a\04");
        assert_eq!(unescape(r"/a\xyz"), r"/a\xyz");
    }
}
