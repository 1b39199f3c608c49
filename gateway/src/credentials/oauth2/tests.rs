use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, Validation};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::Value;

use super::*;
use crate::config::SecretRef;
use crate::credentials::Unkept;
use crate::credentials::fixture::{order, serve, text, vault};

type Asked = (HeaderMap, BTreeMap<String, String>);

/// A token endpoint: it numbers its tokens, and keeps what it was asked.
#[derive(Clone)]
struct Server {
    asked: Arc<Mutex<Vec<Asked>>>,
    given: Arc<AtomicU64>,
    answer: Arc<dyn Fn(u64) -> (StatusCode, String) + Send + Sync>,
}

impl Server {
    fn new(answer: impl Fn(u64) -> (StatusCode, String) + Send + Sync + 'static) -> Self {
        Self { asked: Arc::default(), given: Arc::default(), answer: Arc::new(answer) }
    }

    fn lasting(seconds: u64) -> Self {
        Self::new(move |n| {
            let token = json!({"access_token": format!("token-{n}"), "token_type": "Bearer", "expires_in": seconds});
            (StatusCode::OK, token.to_string())
        })
    }

    async fn start(&self) -> url::Url {
        let token = async |State(server): State<Self>, headers: HeaderMap, body: String| {
            // Long enough for those who come at the same time to meet.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
            server.asked.lock().push((headers, form));
            (server.answer)(server.given.fetch_add(1, Ordering::Relaxed))
        };
        serve(Router::new().route("/token", post(token)).with_state(self.clone())).await.join("token").unwrap()
    }
}

fn config(token_url: url::Url) -> Oauth2Config {
    Oauth2Config {
        token_url,
        client_id: "may fly".into(),
        client_secret: Some(SecretRef::Secret("client".into())),
        scopes: vec!["read".into(), "write".into()],
        audience: Some("https://api.example".into()),
        exchange: None,
    }
}

async fn source(config: Oauth2Config) -> (tempfile::TempDir, Oauth2) {
    let (dir, secrets) = vault(&[("client", "client:secret")]).await;
    (dir, Oauth2::new(config, secrets))
}

fn narrowed(scopes: &[&str]) -> Order {
    Order { scopes: Some(scopes.iter().map(|scope| (*scope).to_owned()).collect()), ..order() }
}

#[tokio::test]
async fn a_client_asks_as_rfc_6749_says() {
    let server = Server::lasting(3600);
    let (_dir, source) = source(config(server.start().await)).await;
    let minted = source.mint(&order(), &Unkept).await.unwrap();
    assert_eq!((text(&minted, None), text(&minted, Some("access_token"))), ("token-0".into(), "token-0".into()));
    let (headers, form) = server.asked.lock().pop().unwrap();
    // "may+fly:client%3Asecret"
    assert_eq!(headers["authorization"], "Basic bWF5K2ZseTpjbGllbnQlM0FzZWNyZXQ=");
    let expected = [("audience", "https://api.example"), ("grant_type", "client_credentials"), ("scope", "read write")];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

#[tokio::test]
async fn a_token_is_kept_for_its_scopes_as_long_as_it_outlives_the_call() {
    let server = Server::lasting(120);
    let (_dir, source) = source(config(server.start().await)).await;
    let (one, two, three) = (order(), order(), narrowed(&["read"]));
    let (one, two, three) = tokio::join!(source.mint(&one, &Unkept), source.mint(&two, &Unkept), source.mint(&three, &Unkept));
    assert_eq!(text(&one.unwrap(), None), text(&two.unwrap(), None), "who comes at the same time waits for one request");
    assert_ne!(
        text(&three.unwrap(), None),
        text(&source.mint(&order(), &Unkept).await.unwrap(), None),
        "fewer scopes, another token"
    );
    assert_eq!(server.asked.lock().len(), 2);
    let longer = Order { life: Duration::from_secs(120), ..order() };
    assert_eq!(text(&source.mint(&longer, &Unkept).await.unwrap(), None), "token-2", "what is left of the first is too short");
    assert_eq!(text(&source.mint(&order(), &Unkept).await.unwrap(), None), "token-2");
    let too_long = Order { life: Duration::from_secs(500), ..order() };
    assert_eq!(text(&source.mint(&too_long, &Unkept).await.unwrap(), None), "token-3", "a new one is all there is");
}

#[tokio::test]
async fn scopes_are_narrowed_and_never_widened() {
    let server = Server::lasting(60);
    let (_dir, source) = source(config(server.start().await)).await;
    for wrong in [&["admin"][..], &["read", "admin"], &[]] {
        assert!(source.mint(&narrowed(wrong), &Unkept).await.is_err(), "{wrong:?}");
    }
    assert!(server.asked.lock().is_empty(), "nobody was asked");
    let generous = Server::new(|_| (StatusCode::OK, json!({"access_token": "a-token", "scope": "read admin"}).to_string()));
    let (_dir, source) = self::source(config(generous.start().await)).await;
    let error = source.mint(&narrowed(&["read"]), &Unkept).await.unwrap_err().to_string();
    assert!(error.contains("more scopes"), "{error}");
}

#[tokio::test]
async fn a_caller_is_told_by_a_signed_statement() {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &SystemRandom::new()).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let public = DecodingKey::from_ec_components(&BASE64_URL_SAFE_NO_PAD.encode(x), &BASE64_URL_SAFE_NO_PAD.encode(y)).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(document.as_ref()));

    let server = Server::lasting(3600);
    let url = server.start().await;
    let key = SecretRef::Secret("key".into());
    let exchange = ExchangeConfig { key, key_id: Some("k1".into()), issuer: "https://mayfly.example".into() };
    let (_dir, secrets) = vault(&[("client", "client:secret"), ("key", &pem), ("rubbish", "no key at all")]).await;
    let source = Oauth2::new(Oauth2Config { exchange: Some(exchange.clone()), ..config(url.clone()) }, secrets.clone());
    source.mint(&order(), &Unkept).await.unwrap();
    let (_, form) = server.asked.lock().pop().unwrap();
    assert_eq!((&*form["grant_type"], &*form["subject_token_type"]), (EXCHANGE, JWT));
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[url.as_str()]);
    validation.set_issuer(&["https://mayfly.example"]);
    let statement = jsonwebtoken::decode::<Value>(&form["subject_token"], &public, &validation).unwrap();
    assert_eq!((&statement.claims["sub"], &statement.claims["act"]["sub"]), (&json!("ann"), &json!("bot")));
    assert_eq!(statement.header.kid.as_deref(), Some("k1"));

    // Another user's token is another one.
    source.mint(&Order { user: Some("bob".into()), ..order() }, &Unkept).await.unwrap();
    let nobody = source.mint(&Order { user: None, ..order() }, &Unkept).await.unwrap_err().to_string();
    assert!(nobody.contains("--user"), "{nobody}");
    source.mint(&order(), &Unkept).await.unwrap();
    assert_eq!(server.asked.lock().len(), 1);

    let exchange = ExchangeConfig { key: SecretRef::Secret("rubbish".into()), ..exchange };
    let source = Oauth2::new(Oauth2Config { exchange: Some(exchange), ..config(url) }, secrets);
    let error = source.mint(&order(), &Unkept).await.unwrap_err().to_string();
    assert!(error.contains("exchange.key") && !error.contains("no key at all"), "{error}");
}

#[tokio::test]
async fn what_a_server_says_is_not_repeated_but_for_its_own_words() {
    for (status, body, says) in [
        (400, r#"{"error": "invalid_scope", "error_description": "canary"}"#, "invalid_scope"),
        (401, r#"{"error": "canary"}"#, "401"),
        (302, "canary", "302"),
        (200, "canary", "RFC 6749"),
        (200, r#"{"access_token": ""}"#, "empty"),
        (200, r#"{"access_token": 1, "canary": 2}"#, "RFC 6749"),
    ] {
        let server = Server::new(move |_| (StatusCode::from_u16(status).unwrap(), body.to_owned()));
        let (_dir, source) = source(config(server.start().await)).await;
        let error = source.mint(&order(), &Unkept).await.unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("canary"), "{body}: {error}");
        // A failure is not kept.
        source.mint(&order(), &Unkept).await.unwrap_err();
        assert_eq!(server.asked.lock().len(), 2);
    }
    let (_dir, source) = source(config("http://127.0.0.1:1/token".parse().unwrap())).await;
    let error = source.mint(&order(), &Unkept).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_token_that_is_said_to_last_for_ever_does_not() {
    let server = Server::lasting(u64::MAX);
    let (_dir, source) = source(config(server.start().await)).await;
    for _ in 0..2 {
        assert_eq!(text(&source.mint(&order(), &Unkept).await.unwrap(), None), "token-0");
    }
    let long = Order { life: LONGEST, ..order() };
    assert_eq!(text(&source.mint(&long, &Unkept).await.unwrap(), None), "token-1");
}
