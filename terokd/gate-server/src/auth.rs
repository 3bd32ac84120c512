//! HTTP Basic: the token is the user name, the password means nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};

/// The user name of the request, if there is a usable one.
pub(crate) fn user(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    decoded.truncate(colon);
    (!decoded.is_empty()).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        user(&headers)
    }

    #[test]
    fn only_basic_with_a_user_counts() {
        let encode = |text: &str| STANDARD.encode(text);
        assert_eq!(
            of(&format!("Basic {}", encode("tok:x:y"))),
            Some(b"tok".to_vec())
        );
        assert_eq!(
            of(&format!("bAsIc  {}", encode("tok:"))),
            Some(b"tok".to_vec())
        );
        for wrong in [
            String::new(),
            "Basic".to_owned(),
            "Basic ".to_owned(),
            "Basic !!!".to_owned(),
            format!("Basic {}", encode("no colon")),
            format!("Basic {}", encode(":password only")),
            format!("Bearer {}", encode("tok:x")),
            format!("Basic{}", encode("tok:x")),
        ] {
            assert_eq!(of(&wrong), None, "{wrong}");
        }
        let mut twice = HeaderMap::new();
        let value: hyper::header::HeaderValue =
            format!("Basic {}", encode("tok:x")).parse().unwrap();
        twice.append(AUTHORIZATION, value.clone());
        twice.append(AUTHORIZATION, value);
        assert_eq!(user(&twice), None);
        assert_eq!(user(&HeaderMap::new()), None);
    }
}
