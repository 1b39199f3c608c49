//! How one credential reaches what it is for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly_executor::egress::Injection;
use mayfly_executor::wire::{SecretFile, SecretText};
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::source::Minted;
use crate::catalog::definition::{CredentialUse, Delivery, Inject, Scheme};

/// The parts that a user's name is in.
const USER: [&str; 2] = ["username", "user"];
/// The part that goes with it.
const PASSWORD: &str = "password";

/// One delivery, in the form in which it leaves.
pub(super) enum Delivered {
    /// A variable of the tool's process.
    Variable(String, SecretText),
    /// A file of the tool's.
    File(SecretFile),
    /// A header that is added outside, and the source that it is of.
    Injection(String, Injection),
}

impl Delivered {
    /// `None` where there is no such part, or it cannot be delivered that way.
    pub(super) fn new(one: &CredentialUse, minted: &Minted) -> Option<Self> {
        let field = minted.field(one.field.as_deref());
        match one.deliver {
            Delivery::Env => Some(Self::Variable(one.variable.clone()?, SecretText::new(text(field?.expose_secret())?))),
            Delivery::File => Some(Self::File(SecretFile::new(one.path.clone()?, field?.expose_secret().to_vec()))),
            Delivery::Egress => {
                let inject = one.inject.as_ref()?;
                let value = match inject.scheme {
                    Scheme::Bearer => Zeroizing::new(format!("Bearer {}", line(field?.expose_secret())?)),
                    Scheme::Header => Zeroizing::new(line(field?.expose_secret())?.to_owned()),
                    Scheme::Basic => basic(one, minted)?,
                };
                Some(Self::Injection(one.source.clone(), injection(inject, &value)))
            }
        }
    }
}

fn injection(inject: &Inject, value: &str) -> Injection {
    Injection {
        to: inject.to.clone(),
        tls: !inject.plaintext,
        methods: inject.methods.iter().cloned().collect(),
        paths: inject.paths.clone(),
        header: inject.header.as_deref().unwrap_or("authorization").to_ascii_lowercase(),
        value: SecretText::new(value),
    }
}

/// The credentials of RFC 7617: those of a user that has a name, or what is written as `user:password` already.
fn basic(one: &CredentialUse, minted: &Minted) -> Option<Zeroizing<String>> {
    let part = |name: &str| minted.field(Some(name)).and_then(|part| text(part.expose_secret()));
    let user = USER.iter().find_map(|name| part(name)).filter(|_| one.field.is_none());
    let pair = match (user, part(PASSWORD)) {
        (Some(user), Some(password)) if !user.contains(':') => Zeroizing::new(format!("{user}:{password}")),
        _ => Zeroizing::new(text(minted.field(one.field.as_deref())?.expose_secret())?.to_owned()),
    };
    pair.contains(':').then(|| Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
}

/// What a variable can hold.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'))
}

/// What a header can hold (RFC 9110, 5.5, without what is obsolete in it).
fn line(value: &[u8]) -> Option<&str> {
    let is_plain = !value.is_empty() && value.iter().all(|byte| matches!(byte, 0x20..=0x7e)) && value.trim_ascii() == value;
    text(value).filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn minted(parts: &[(&str, &str)]) -> Minted {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), Zeroizing::new((*value).to_owned()));
        Minted::texts(parts.iter().map(owned).collect::<BTreeMap<_, _>>()).unwrap()
    }

    /// The header's value, of a use that says this beside its destination.
    fn header(said: serde_json::Value, parts: &[(&str, &str)]) -> Option<String> {
        let mut inject = json!({"to": "api.example.com:443"});
        inject.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let one = json!({"source": "api", "deliver": "egress", "inject": inject});
        match Delivered::new(&serde_json::from_value(one).unwrap(), &minted(parts))? {
            Delivered::Injection(_, injection) => Some(format!("{}: {}", injection.header, injection.value.expose())),
            _ => None,
        }
    }

    #[test]
    fn a_destination_gets_it_as_it_expects_it() {
        let token = [("token", "abc")];
        assert_eq!(header(json!({"as": "bearer"}), &token).as_deref(), Some("authorization: Bearer abc"));
        assert_eq!(header(json!({"as": "header", "header": "X-Api-Key"}), &token).as_deref(), Some("x-api-key: abc"));
        let user = [("username", "Aladdin"), ("password", "open sesame")];
        let known = Some("authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(header(json!({"as": "basic"}), &user).as_deref(), known);
        assert_eq!(header(json!({"as": "basic"}), &[("value", "Aladdin:open sesame")]).as_deref(), known);
    }

    #[test]
    fn what_is_no_header_is_not_made_one() {
        assert_eq!(header(json!({"as": "basic"}), &[("value", "no pair")]), None);
        for odd in ["two\r\nlines", "\u{e9}", " padded"] {
            assert_eq!(header(json!({"as": "bearer"}), &[("token", odd)]), None, "{odd:?}");
        }
    }
}
