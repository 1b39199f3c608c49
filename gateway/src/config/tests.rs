//! The configuration against good and bad files.

use super::*;

const EXAMPLE: &str = include_str!("../../../manifests/mayfly.yaml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("mayfly.yaml"), text).map_err(|e| e.to_string())
}

fn resolved(mut config: Config) -> Config {
    config.admin_socket = Some(config.admin_socket());
    config.wasm.cache_dir = Some(config.wasm_cache());
    config
}

#[test]
fn nothing_has_to_be_configured() {
    assert_eq!(Config::load_with(None, |_| None), Ok(Config::default()));
    assert_eq!(parse("# nothing\n"), Ok(Config::default()));
    assert_eq!(parse("{}"), Ok(Config::default()));
}

#[test]
fn the_example_has_every_key_with_its_default() {
    fn keys(schema: &Value, at: &str, found: &mut Vec<String>) {
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            assert!(property.get("description").is_some(), "{at}/{name} has no description");
            match property.get("properties") {
                Some(_) => keys(property, &format!("{at}/{name}"), found),
                None => found.push(format!("{at}/{name}")),
            }
        }
    }
    // The keys without a default are there as comments.
    let example = EXAMPLE
        .replace("secrets: {}", "secrets:")
        .replace("  # master_key:", "  master_key:")
        .replace("  # previous_master_key:", "  previous_master_key:")
        .replace("  # data: policies/data.json", "  data: policies/data.json")
        .replace("  # host: unix:///var/run/docker.sock", "  host: unix:///var/run/docker.sock")
        .replace("  # kubeconfig: /etc/mayfly/kubeconfig", "  kubeconfig: /etc/mayfly/kubeconfig")
        .replace("  # context: production", "  context: production");
    assert_ne!(example, EXAMPLE);
    let (document, problems) = Document::parse(Path::new("mayfly.yaml"), &example).unwrap();
    assert_eq!(problems, []);
    let mut expected = Vec::new();
    keys(&crate::document::schema_of::<Config>(), "", &mut expected);
    for key in &expected {
        assert!(document.value.pointer(key).is_some(), "{key} is not in manifests/mayfly.yaml");
    }
    assert_eq!(parse(EXAMPLE), Ok(resolved(Config::default())));
}

#[test]
fn the_examples_of_credential_sources_are_right() {
    let from = EXAMPLE.split_once("credentials: {}\n").unwrap().1.split_once("\nwasm:").unwrap().0;
    // What is no sentence is an example.
    let is_key = |line: &str| {
        line.starts_with([' ']) || line.split_once(':').is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase()))
    };
    let lines: Vec<_> = from.lines().filter_map(|line| line.strip_prefix("  # ")).filter(|line| is_key(line)).collect();
    let text = format!("credentials:\n  {}\n", lines.join("\n  "));
    let config = parse(&text).unwrap_or_else(|problems| panic!("{text}{problems}"));
    assert_eq!(config.credentials.len(), 6);
    insta::assert_debug_snapshot!(config.credentials);
}

#[test]
fn mistakes_in_sources_are_named() {
    for (source, key, says) in [
        ("{kind: statik, secret: a}", "credentials.a.kind", "postgres"),
        ("{kind: static}", "credentials.a.secret", "is missing"),
        ("{kind: static, secret: a, sekret: b}", "credentials.a.sekret", "unknown"),
        ("{kind: command, command: []}", "credentials.a.command", "empty list"),
        ("{kind: postgres, url: 'postgres://u:secret@h/d'}", "credentials.a.url", "without a password"),
        ("{kind: vault, address: 'https://v', token: {file: t}, path: a/b, max_ttl: 1s}", "max_ttl", "24h"),
        ("{kind: vault, address: 'https://v', token: {file: t, secret: u}, path: a/b}", "credentials.a.token", "vault"),
        ("a", "credentials.a", "kind"),
        ("{kind: oauth2, token_url: 'ftp://x', client_id: a}", "credentials.a.token_url", "where tokens"),
        ("{kind: postgres, url: 'postgres://u@h/d?password=x'}", "credentials.a.url", "sslmode"),
        ("{kind: postgres, url: 'postgres://u@h'}", "credentials.a.url", "database"),
        ("{kind: vault, address: 'http://v.internal', token: {file: t}, path: a/b}", "address", "in the clear"),
        ("{kind: oauth2, token_url: 'http://v.internal/t', client_id: a}", "token_url", "in the clear"),
        ("{kind: kubernetes, namespace: mayfly-executions, service_account: a}", "namespace", "of its own"),
    ] {
        let told = parse(&format!("credentials: {{a: {source}}}")).unwrap_err();
        assert!(told.contains(key) && told.contains(says), "{source}: {told}");
    }
    for name in ["A", "-a", "'a b'", "'a/b'"] {
        let told = parse(&format!("credentials: {{{name}: {{kind: static, secret: a}}}}")).unwrap_err();
        assert!(told.contains("no name for a source"), "{told}");
    }
    let told = parse("secrets: {master_key: {file: a, environment: b}}").unwrap_err();
    assert!(told.contains("secrets.master_key"), "{told}");
}

#[test]
fn every_mistake_is_named_at_once() {
    let text = "listen: localhost:8420\nobservability_listen: 127.0.0.1:8422\ntools: []\nallowed_mounts: [/, srv, /srv/../etc]\ncolour: blue\ntls: {}\npolicy:\n  package: a..b\n  time_limit: 1m\nlimits:\n  body: 1Gi\n  json_depth: 4000\n  connections: many\n  requests_per_second: 10\n  burst: 5\ndurability: none\ndrain_grace: 11m\nwasm: {max_instances: 0}\ndocker: {enabled: yes, host: 'tcp://127.0.0.1:2375'}\nlog: {format: xml}\n";
    insta::assert_snapshot!(parse(text).unwrap_err());
}

#[test]
fn bounds_bite() {
    for (text, key) in [
        ("start_timeout: 0s", "start_timeout"),
        ("limits: {wait: 2h}", "limits.wait"),
        ("limits: {json_depth: 3}", "limits.json_depth"),
        ("limits: {json_depth: 65}", "limits.json_depth"),
        ("limits: {header_timeout: 5m}", "limits.header_timeout"),
        ("limits: {requests_per_second: 3000}", "limits.burst"),
        ("wasm: {max_memory: 8Gi}", "wasm.max_memory"),
        ("policy: {timezone: '../etc'}", "policy.timezone"),
        ("listen: 127.0.0.1:8421", "observability_listen"),
        ("tools: images", "tools"),
        ("listen: 1\nlisten: 2", "listen"),
        ("- a", "list"),
    ] {
        let told = parse(text).unwrap_err();
        assert!(told.contains(&format!(" {key} ")) || told.contains(key), "{text}: {told}");
    }
    let long = format!("data_dir: /{}\n", "d".repeat(100));
    assert!(parse(&long).unwrap_err().contains("administration socket"));
}

#[test]
fn the_environment_says_where_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mayfly.yaml");
    std::fs::write(&file, "listen: 127.0.0.1:9000\ndata_dir: from-file\n").unwrap();
    let environment = |name: &str| match name {
        "MAYFLY_CONFIG" => Some(file.clone().into_os_string()),
        "MAYFLY_DATA_DIR" => Some("from-environment".into()),
        _ => Some("127.0.0.1:1".into()),
    };
    let config = Config::load_with(None, environment).unwrap();
    assert_eq!((config.listen.port(), config.data_dir), (9000, PathBuf::from("from-environment")));
    assert_eq!(Config::load_with(Some(&file), |_| Some(OsString::new())).unwrap().data_dir, PathBuf::from("from-file"));
    assert!(Config::load_with(Some(Path::new("/missing.yaml")), |_| None).unwrap_err().to_string().contains("/missing.yaml"));
}

#[test]
fn what_calls_may_do_outside_is_bounded_and_its_files_are_read() {
    for (said, key) in [
        ("{bytes: 1}", "egress.bytes"),
        ("{bytes: 2048Gi}", "egress.bytes"),
        ("{connections: 0}", "egress.connections"),
        ("{connect_timeout: 10ms}", "egress.connect_timeout"),
        ("{connect_timeout: 2m}", "egress.connect_timeout"),
        ("{routes: {db.internal: '10.0.0.7:5432'}}", "db.internal"),
    ] {
        let found = parse(&format!("egress: {said}\n")).unwrap_err().to_string();
        assert!(found.contains(key), "{said}: {found}");
    }
    let good = parse("egress: {routes: {'db.internal:5432': '10.0.0.7:5432'}, connections: 5}\n").unwrap().egress;
    let terms = good.terms().unwrap();
    assert_eq!((terms.limits.connections, terms.routes.len()), (5, 1));
    let missing = EgressConfig { trust: vec!["/nowhere/root.pem".into()], ..EgressConfig::default() };
    assert!(missing.terms().unwrap_err().contains("/nowhere/root.pem"));
}
