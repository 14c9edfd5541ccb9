//! What a registry wants to see before it answers: `WWW-Authenticate` (RFC 9110, 11.6.1; distribution specification,
//! "Authentication").

/// A way to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password.
    Basic,
    /// A token, from the server at `realm`.
    Bearer {
        /// An address.
        realm: String,
        /// What the server of tokens calls the registry.
        service: Option<String>,
    },
}

impl Challenge {
    /// The challenge of these headers: that for a token, if there are several.
    pub fn of<'h>(headers: impl IntoIterator<Item = &'h str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            for (scheme, parameters) in challenges(header) {
                let value = |name: &str| {
                    let mut found = parameters.iter();
                    found.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
                };
                if scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
                if scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = value("realm")
                {
                    return Some(Self::Bearer { realm, service: value("service") });
                }
            }
        }
        basic
    }
}

type Parameters = Vec<(String, String)>;

/// The schemes of a header, each with its parameters.
fn challenges(mut rest: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            return found;
        }
        let word = rest[..end].to_owned();
        rest = rest[end..].trim_start_matches([' ', '\t']);
        let Some(value) = rest.strip_prefix('=') else {
            found.push((word, Parameters::new()));
            continue;
        };
        let (value, after) = parameter_value(value.trim_start_matches([' ', '\t']));
        rest = after;
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((word, value));
        }
    }
}

/// A token or a quoted string, and what follows.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
    }

    #[test]
    fn a_token_is_preferred() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push""#;
        let found = bearer("https://auth.docker.io/token", Some("registry.docker.io"));
        assert_eq!(Challenge::of([docker]), found);
        assert_eq!(Challenge::of(["Basic realm=\"x\"", docker]), found);
        let one = format!("basic realm=\"a, bearer realm=b\" , {docker}");
        assert_eq!(Challenge::of([&*one]), found);
        assert_eq!(Challenge::of(["BASIC realm=x"]), Some(Challenge::Basic));
        assert_eq!(Challenge::of([r#"bearer Realm = "a\"b" , x=y"#]), bearer("a\"b", None));
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for text in
            ["", ",,", "=", "Bearer", "Bearer realm", "realm=x", "\u{1b}", "Bearer service=\"x"]
        {
            assert_eq!(Challenge::of([text]), None, "{text:?}");
        }
        assert_eq!(Challenge::of(["Bearer realm=\"x"]), bearer("x", None));
    }
}
