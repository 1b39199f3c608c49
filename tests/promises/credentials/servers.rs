//! Credentials of a real Vault and a real OAuth 2.0 server.

use std::process::Command;

use mayfly_tests::harness::postgres::{PASSWORD, Postgres};
use mayfly_tests::harness::servers::Server;
use mayfly_tests::harness::until;

use super::*;

fn of(server: &Server, path: &str) -> Value {
    json!({"kind": "vault", "address": server.url, "token": {"environment": "HARNESS_TOKEN"}, "path": path})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_vaults_store_reaches_the_call() {
    let Some(engine) = Engine::docker() else { return };
    let server = Server::vault().await;
    server.write("secret/data/github", &json!({"data": {"token": "canary-of-vaults-store"}})).await;
    let name = "told_of_vault";
    let uses = "  - {source: scoped, field: token, deliver: env, variable: TOKEN}\n";
    let setup = gateway(&engine, name, of(&server, "secret/data/github"), uses);
    let mayfly = setup.env("HARNESS_TOKEN", &server.token).start();
    let ann = mayfly.agent("ann");
    let (id, said) = told(&ann, name, 1).await;
    assert_eq!(said[0], "canary-of-vaults-store");
    assert_eq!(ann.wait(&id).await["result"]["said"], "[redacted]");

    // One that does not answer: nothing runs, and nobody learns more than that.
    server.stop();
    let refused = ann.call(name, json!({})).await;
    server.resume();
    assert_eq!((refused.status, &refused.body["title"]), (503, &json!("Credential unavailable")), "{refused:?}");
    let log = format!("{:?}", mayfly.log());
    assert!(!log.contains("canary") && !log.contains(&server.token));
}

/// Vault makes a role in a real PostgreSQL, and drops it when its lease is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_vault_lives_as_long_as_its_call() {
    let Some(engine) = Engine::docker() else { return };
    let (server, database) = (Server::vault().await, Postgres::start());
    let url = format!("postgres://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/shop?sslmode=disable", database.port);
    let connection = json!({"plugin_name": "postgresql-database-plugin", "allowed_roles": "reader", "connection_url": url, "username": "root_admin", "password": PASSWORD});
    server.write("database/config/shop", &connection).await;
    let creates = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE reader"#;
    let role = json!({"db_name": "shop", "creation_statements": creates, "default_ttl": "10m", "max_ttl": "30m"});
    server.write("database/roles/reader", &role).await;
    let name = "told_of_a_lease";
    let uses = "  - {source: scoped, field: username, deliver: env, variable: TOKEN}\n  - {source: scoped, field: password, deliver: file, path: /tmp/token}\n";
    let setup = gateway(&engine, name, of(&server, "database/creds/reader"), uses);
    let mayfly = setup.env("HARNESS_TOKEN", &server.token).start();
    let ann = mayfly.agent("ann");
    let (id, said) = told(&ann, name, 2).await;
    assert_eq!(database.attempt(&said[0], &said[1], "shop", "SELECT count(*) FROM orders"), Ok("1000".into()));
    let leases = "sys/leases/lookup/database/creds/reader";
    assert_eq!(server.list(leases).await.len(), 1);

    // It does not answer when the call ends: what is owed is done as soon as it does.
    server.stop();
    ann.wait(&id).await;
    until("it is owed", Duration::from_secs(30), || credentials(&mayfly, "leaked") != json!([]));
    server.resume();
    until("nothing is owed", Duration::from_secs(60), || credentials(&mayfly, "list") == json!([]));
    assert_eq!(server.list(leases).await, Vec::<Value>::new());
    assert!(database.attempt(&said[0], &said[1], "shop", "SELECT 1").is_err(), "the role is dropped");
}

/// A key pair on P-256, as PEM: the private half, and the file of the public one.
fn keys(dir: &std::path::Path) -> (String, std::path::PathBuf) {
    let (private, public) = (dir.join("key.pem"), dir.join("public.pem"));
    let openssl = |args: &[&str]| assert!(Command::new("openssl").args(args).status().unwrap().success());
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", &path(&private)]);
    openssl(&["pkey", "-in", &path(&private), "-pubout", "-out", &path(&public)]);
    (std::fs::read_to_string(private).unwrap(), public)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oauth_server_gives_tokens_for_the_gateway_and_in_the_name_of_its_callers() {
    let Some(engine) = Engine::docker() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = keys(dir.path());
    let server = Server::oauth(&public);
    let source = |client: &str, variable: &str, more: Value| {
        let mut source = json!({"kind": "oauth2", "token_url": format!("{}oauth/token", server.url), "client_id": client, "client_secret": {"environment": variable}, "scopes": ["openid", "profile"]});
        source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        source
    };
    let exchange =
        json!({"audience": "web", "exchange": {"key": {"environment": "HARNESS_KEY"}, "issuer": "https://mayfly.example.com"}});
    let name = "told_by_oauth";
    let uses = "  - {source: own, scopes: [openid], deliver: env, variable: TOKEN}\n  - {source: exchanged, deliver: file, path: /tmp/token}\n";
    let setup = gateway(&engine, name, json!({}), uses);
    let sources = json!({"own": source("sid1", "HARNESS_OWN", json!({})), "exchanged": source("web", "HARNESS_WEB", exchange)});
    let setup = setup.set("/credentials", sources).env("HARNESS_OWN", "verysecret").env("HARNESS_WEB", "secret");
    let mayfly = setup.env("HARNESS_KEY", &private).start();
    let ann = mayfly.agent_with("ann", &["--user", "id1"]);
    let (id, said) = told(&ann, name, 2).await;
    let exchanged = server.introspect(&said[1], "web", "secret").await;
    assert_eq!(
        (&exchanged["active"], &exchanged["sub"], &exchanged["client_id"]),
        (&json!(true), &json!("id1"), &json!("web")),
        "{exchanged}"
    );
    assert!(exchanged["scope"] == "openid profile" || exchanged["scope"] == "profile openid", "{exchanged}");
    assert!(said[0] != said[1] && said[0].len() > 20);
    assert!(!ann.wait(&id).await.to_string().contains(&said[0]));

    // Nobody to speak for, or somebody whom the server does not know: the call ends before a sandbox is claimed.
    for (agent, options) in [("bob", &[][..]), ("eve", &["--user", "nobody-there"])] {
        let refused = mayfly.agent_with(agent, options).call(name, json!({})).await;
        let told = refused.body["detail"].as_str().unwrap_or_default();
        assert!(refused.status == 503 && told.contains("`exchanged` could not be had, so the call was not made"), "{refused:?}");
    }
    let log = format!("{:?}", mayfly.log());
    assert!(![&said[0], &said[1], "verysecret"].iter().any(|word| log.contains(*word)));
}
