//! Where a filter's key-value store is: the text of `store:` and what it says.

use std::fmt;

/// The port of Redis where a URL names none.
const REDIS_PORT: u16 = 6379;
/// The least that a store in memory is of use with.
pub(super) const STORE_BYTES_MIN: u64 = 64 << 10;
pub(super) const STORE_BYTES_MAX: u64 = 16 << 30;

/// Where a filter's key-value store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// In this process.
    Memory {
        /// What it holds at most; default 16 MiB.
        bytes: usize,
    },
    /// In a Redis, which other proxies may share.
    Redis(RedisConfig),
}

/// A Redis and who asks it. Shown without the password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedisConfig {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
    pub password: Option<String>,
    /// Number of the database.
    pub db: i64,
}

impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}/{}", self.host, self.port, self.db),
            false => write!(f, "{}:{}/{}", self.host, self.port, self.db),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisConfig({self})")
    }
}

/// What is wrong with the text of `store:`. Tells nothing of what it says, which may be a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoreProblem {
    /// Neither `memory` nor a URL.
    Unknown,
    /// A URL of another scheme.
    Scheme(String),
    /// A URL for Redis that has a part which cannot be.
    Url(&'static str),
}

/// `memory` with `bytes`, or `redis://[user:password@]host[:port][/db]`.
pub(super) fn parse(text: &str, bytes: usize) -> Result<StoreConfig, StoreProblem> {
    if text == "memory" {
        return Ok(StoreConfig::Memory { bytes });
    }
    match text.split_once("://") {
        None => Err(StoreProblem::Unknown),
        Some(("redis", rest)) => redis(rest)
            .map(StoreConfig::Redis)
            .map_err(StoreProblem::Url),
        Some((scheme, _)) => Err(StoreProblem::Scheme(scheme.to_owned())),
    }
}

fn redis(rest: &str) -> Result<RedisConfig, &'static str> {
    let (place, db) = match rest.rsplit_once('/') {
        // A password may have a slash; the database is behind the host.
        Some((place, db)) if !db.contains('@') => (place, db),
        _ => (rest, ""),
    };
    let db = match db {
        "" => 0,
        db => db
            .parse::<u32>()
            .map_err(|_| "what follows the host is not the number of a database")?
            .into(),
    };
    let (who, place) = match place.rsplit_once('@') {
        Some((who, place)) => (Some(who), place),
        None => (None, place),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest
                .split_once(']')
                .ok_or("the bracket of the address is not closed")?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("what stands in brackets is not an IPv6 address");
            }
            match port.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None if port.is_empty() => (address, None),
                None => return Err("between the address and its port stands a colon"),
            }
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(allowed) {
        return Err("the host is missing or is not one");
    }
    let port = match port.map(str::parse::<u16>) {
        None => REDIS_PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err("the port is not a number from 1 to 65535"),
    };
    let (user, password) = match who.map(|who| who.split_once(':')) {
        None => (None, None),
        Some(Some((user, password))) => (part(user)?, part(password)?),
        Some(None) => return Err("before the @ stand a user, a colon and a password"),
    };
    Ok(RedisConfig {
        host: host.to_owned(),
        port,
        user,
        password,
        db,
    })
}

/// A user or a password, in which `%40` stands for `@` and the like.
fn part(text: &str) -> Result<Option<String>, &'static str> {
    let wrong = "a percent sign in the user or the password is written %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong);
        };
        bytes.push((high * 16 + low) as u8);
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_text_says() {
        let at = |host: &str, port, user: Option<&str>, password: Option<&str>, db| {
            Ok(StoreConfig::Redis(RedisConfig {
                host: host.into(),
                port,
                user: user.map(Into::into),
                password: password.map(Into::into),
                db,
            }))
        };
        let cases = [
            ("memory", Ok(StoreConfig::Memory { bytes: 7 })),
            ("redis://cache", at("cache", 6379, None, None, 0)),
            ("redis://cache:1/", at("cache", 1, None, None, 0)),
            ("redis://[::1]:7/3", at("::1", 7, None, None, 3)),
            ("redis://[::1]", at("::1", 6379, None, None, 0)),
            (
                "redis://me:a%40b:c/d@h:1/2",
                at("h", 1, Some("me"), Some("a@b:c/d"), 2),
            ),
            ("redis://:secret@h", at("h", 6379, None, Some("secret"), 0)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text, 7), expected, "{text}");
        }
        for text in [
            "redis://",
            "redis://h:0",
            "redis://h:x",
            "redis://h:1:2",
            "redis://h/x",
            "redis://h/-1",
            "redis://u@h",
            "redis://u:%4@h",
            "redis://[x]:1",
            "redis://[::1",
            "redis://[::1]1",
            "redis://h i",
        ] {
            assert!(
                matches!(parse(text, 7), Err(StoreProblem::Url(_))),
                "{text}"
            );
        }
        assert_eq!(parse("disk", 7), Err(StoreProblem::Unknown));
        assert_eq!(
            parse("rediss://h", 7),
            Err(StoreProblem::Scheme("rediss".into()))
        );
    }

    #[test]
    fn the_password_is_not_shown() {
        let config = parse("redis://me:secret@[::1]:1/2", 0);
        assert_eq!(format!("{config:?}"), "Ok(Redis(RedisConfig([::1]:1/2)))");
    }
}
