//! What a path asks for: `/<name>.git/<endpoint>`, and nothing else exists.

/// A path that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route<'a> {
    /// Directory name of the repository.
    pub(crate) name: &'a str,
    /// What of it.
    pub(crate) endpoint: Endpoint,
}

/// What can be asked of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Where a conversation starts.
    InfoRefs,
    /// The symbolic head.
    Head,
    /// A conversation.
    Rpc(Service),
}

/// One of git's two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Reading.
    UploadPack,
    /// Writing.
    ReceivePack,
}

impl Service {
    /// The name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    /// The name as a command of git.
    pub(crate) const fn command(self) -> &'static str {
        match self {
            Self::UploadPack => "upload-pack",
            Self::ReceivePack => "receive-pack",
        }
    }

    /// The service that a query names: none, one that exists, or one that does not.
    pub(crate) fn from_query(query: Option<&str>) -> Result<Option<Self>, ()> {
        let named = query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .find_map(|pair| pair.strip_prefix("service="));
        match named {
            None => Ok(None),
            Some("git-upload-pack") => Ok(Some(Self::UploadPack)),
            Some("git-receive-pack") => Ok(Some(Self::ReceivePack)),
            Some(_) => Err(()),
        }
    }
}

/// The route of a path without its query.
pub(crate) fn route(path: &str) -> Option<Route<'_>> {
    let (name, endpoint) = path.strip_prefix('/')?.split_once('/')?;
    let endpoint = match endpoint {
        "info/refs" => Endpoint::InfoRefs,
        "HEAD" => Endpoint::Head,
        "git-upload-pack" => Endpoint::Rpc(Service::UploadPack),
        "git-receive-pack" => Endpoint::Rpc(Service::ReceivePack),
        _ => return None,
    };
    servable(name).then_some(Route { name, endpoint })
}

/// Whether a directory of that name may be served: `^[A-Za-z0-9._-]+\.git$`.
pub(crate) fn servable(name: &str) -> bool {
    name.len() <= 255
        && name.strip_suffix(".git").is_some_and(|stem| {
            !stem.is_empty()
                && stem
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_endpoints_exist() {
        let found = route("/a-b_c.9.git/info/refs").unwrap();
        assert_eq!(
            (found.name, found.endpoint),
            ("a-b_c.9.git", Endpoint::InfoRefs)
        );
        assert_eq!(route("/a.git/HEAD").unwrap().endpoint, Endpoint::Head);
        assert_eq!(
            route("/a.git/git-receive-pack").unwrap().endpoint,
            Endpoint::Rpc(Service::ReceivePack)
        );
        for wrong in [
            "",
            "/",
            "/a.git",
            "/a.git/",
            "/.git/info/refs",
            "/a/info/refs",
            "//a.git/info/refs",
            "/a.git//info/refs",
            "/x/a.git/info/refs",
            "/../a.git/info/refs",
            "/%2e%2e.git/info/refs",
            "/a.git/objects/info/packs",
            "/a.git/config",
            "/a.git/info/refs/",
            "/.known_hosts/HEAD",
            "/.hooks/HEAD",
            "/é.git/HEAD",
            "/a.git\n/HEAD",
            "*",
        ] {
            assert_eq!(route(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_query_names_one_of_two_services() {
        assert_eq!(Service::from_query(None), Ok(None));
        assert_eq!(Service::from_query(Some("a=b")), Ok(None));
        assert_eq!(
            Service::from_query(Some("x&service=git-upload-pack")),
            Ok(Some(Service::UploadPack))
        );
        assert_eq!(
            Service::from_query(Some("service=git-upload-archive")),
            Err(())
        );
        assert_eq!(Service::from_query(Some("service=")), Err(()));
    }
}
