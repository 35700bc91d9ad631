//! Whom an image's program runs as: names are looked up in the image's own `/etc/passwd` and `/etc/group`.

use dunlin_model::ImageUser;

use super::tree::Root;
use crate::error::Problem;

const FILE_BYTES_MAX: u64 = 4 << 20;
const GROUPS_MAX: usize = 64;
const ID_MAX: u32 = 65_535;

/// Reads `USER[:GROUP]`, each a name or a number. None is root.
pub(super) fn resolve(tree: &Root<'_>, text: &str) -> Result<ImageUser, Problem> {
    let passwd = tree.read(&[b"etc", b"passwd"], FILE_BYTES_MAX)?;
    let group = tree.read(&[b"etc", b"group"], FILE_BYTES_MAX)?;
    let (passwd, group) = (String::from_utf8_lossy(&passwd), String::from_utf8_lossy(&group));
    look_up(text, &passwd, &group).ok_or_else(|| Problem::User { user: text.chars().take(100).collect() })
}

fn look_up(text: &str, passwd: &str, group: &str) -> Option<ImageUser> {
    let (user, given_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let users = || passwd.lines().filter_map(User::read);
    let number = id(user);
    let known = users().find(|known| known.name == user).or_else(|| users().find(|known| Some(known.uid) == number));
    let uid = known.as_ref().map(|known| known.uid).or(number)?;
    let groups = || group.lines().filter_map(Group::read);
    let gid = match given_group {
        Some(name) => groups().find(|group| group.name == name).map(|group| group.gid).or_else(|| id(name))?,
        None => known.as_ref().map_or(0, |known| known.gid),
    };
    // Who names a group means that one alone.
    let member = known.filter(|_| given_group.is_none()).map(|known| known.name);
    let is_in = |group: &Group<'_>| member.is_some_and(|name| group.members.split(',').any(|other| other == name));
    let further = groups().filter(|group| group.gid != gid && is_in(group)).map(|group| group.gid).take(GROUPS_MAX);
    Some(ImageUser { uid, gid, groups: further.collect() })
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> User<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some(Self { name, uid: id(fields.nth(1)?)?, gid: id(fields.next()?)? })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some(Self { name, gid: id(fields.nth(1)?)?, members: fields.next().unwrap_or_default().trim() })
    }
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= ID_MAX && text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\nbig:x:70000:1::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nvideo:x:44:other,app\ndisk:x:6:root\nfar:x:99999:app\n";

    #[test]
    fn a_user_is_who_the_image_says() {
        let user = |text| look_up(text, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.groups));
        assert_eq!(user(""), Some((0, 0, vec![6])));
        assert_eq!(user("root"), Some((0, 0, vec![6])));
        assert_eq!(user("app"), Some((1000, 1001, vec![44])));
        assert_eq!(user("1000"), Some((1000, 1001, vec![44])));
        assert_eq!(user("app:video"), Some((1000, 44, vec![])));
        assert_eq!(user("app:7"), Some((1000, 7, vec![])));
        assert_eq!(user("65532"), Some((65_532, 0, vec![])));
        assert_eq!(user("65532:65532"), Some((65_532, 65_532, vec![])));
        for nobody in ["nobody", "big", "70000", "app:nogroup", "-1", "+1", "app:far"] {
            assert_eq!(user(nobody), None, "{nobody}");
        }
        assert_eq!(look_up("", "", ""), Some(ImageUser::default()));
    }
}
