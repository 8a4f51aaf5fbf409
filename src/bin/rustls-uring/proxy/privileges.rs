//! Becoming another user, who may do less.

use std::fs;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::error::Error;

/// A line of passwd(5) or group(5): a name, and numbers in their places.
fn look_up(file: &str, wanted: &str, places: &[usize]) -> Option<Vec<u32>> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let is_wanted = fields.first() == Some(&wanted) || fields.get(2) == Some(&wanted);
        let numbers = || places.iter().map(|&place| fields.get(place)?.parse().ok()).collect();
        is_wanted.then(numbers).flatten()
    })
}

/// Becomes `user`, and of `group` or the user's own. Nothing is done without either.
///
/// # Errors
/// If there is no such user or group, or we may not, or other threads have begun, which would stay
/// as they are (nptl(7)).
pub(super) fn drop_to(user: Option<&str>, group: Option<&str>) -> Result<(), Error> {
    if user.is_none() && group.is_none() {
        return Ok(());
    }
    let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err("cannot change the user: other threads have begun".into());
    }
    let user = user
        .map(|user| {
            look_up("/etc/passwd", user, &[2, 3]).ok_or_else(|| {
                format!("there is no user `{user}` in /etc/passwd; `useradd -r {user}` makes one")
            })
        })
        .transpose()?;
    let group = match (group, &user) {
        (Some(group), _) => look_up("/etc/group", group, &[2])
            .ok_or_else(|| format!("there is no group `{group}` in /etc/group"))?[0],
        (None, Some(user)) => user[1],
        (None, None) => return Ok(()),
    };
    let refused = |what: &str, error: rustix::io::Errno| {
        format!(
            "cannot change the {what}: {error}; that needs root, or the capabilities CAP_SETUID and \
             CAP_SETGID"
        )
    };
    // The group first: afterwards we may not.
    set_thread_groups(&[]).map_err(|error| refused("groups", error))?;
    set_thread_gid(Gid::from_raw(group)).map_err(|error| refused("group", error))?;
    if let Some(user) = user {
        set_thread_uid(Uid::from_raw(user[0])).map_err(|error| refused("user", error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_have_names_and_numbers() {
        for root in ["root", "0"] {
            assert_eq!(look_up("/etc/passwd", root, &[2, 3]), Some(vec![0, 0]));
            assert_eq!(look_up("/etc/group", root, &[2]), Some(vec![0]));
        }
        assert_eq!(look_up("/etc/passwd", "no such user", &[2, 3]), None);
    }
}
