use super::*;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

/// A database of its own with the daemon's table.
pub(crate) async fn pool(dir: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(dir.join("state.db"))
        .create_if_missing(true);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .unwrap();
    let exists: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = 'gate_tokens'")
            .fetch_one(&pool)
            .await
            .unwrap();
    if exists == 0 {
        sqlx::raw_sql(include_str!("../../../src/store/0003_gate_tokens.sql"))
            .execute(&pool)
            .await
            .unwrap();
    }
    pool
}

fn opens(tokens: &Tokens, token: &str) -> Option<(String, String)> {
    let grant = tokens.lookup(token.as_bytes())?;
    Some((grant.scope.clone(), grant.task_id.clone()))
}

fn of(scope: &str, task: &str) -> Option<(String, String)> {
    Some((scope.to_owned(), task.to_owned()))
}

#[tokio::test]
async fn a_new_token_of_a_task_ends_the_older_ones() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(pool(dir.path()).await).await.unwrap();
    let gate = Path::new("/g/a.git");
    let mut last = None;
    for _ in 0..5 {
        last = Some(tokens.mint("a", "t1", gate).await.unwrap());
    }
    let last = last.unwrap();
    assert_eq!(tokens.count(), 1);
    let other = tokens.mint("a", "t2", gate).await.unwrap();
    let more = tokens.mint_another("a", "t2", gate).await.unwrap();
    assert_eq!(tokens.count(), 3);

    let again = Tokens::open(pool(dir.path()).await).await.unwrap();
    assert_eq!(again.count(), 3);
    assert_eq!(opens(&again, last.expose()), of("a", "t1"));
    assert_eq!(opens(&again, other.expose()), of("a", "t2"));
    assert_eq!(
        again.lookup(more.expose().as_bytes()).unwrap().gate_path,
        gate
    );
    assert_eq!(
        opens(&again, "terok-g-00000000000000000000000000000000"),
        None
    );
    assert_eq!(opens(&again, ""), None);
    assert_eq!(again.tasks().len(), 2);
}

#[tokio::test]
async fn only_hashes_are_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path()).await;
    let tokens = Tokens::open(pool.clone()).await.unwrap();
    let token = tokens.mint("a", "t", Path::new("/g/a.git")).await.unwrap();
    pool.close().await;
    let random = token
        .expose()
        .strip_prefix("terok-g-")
        .unwrap()
        .as_bytes()
        .to_vec();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(random.len()).any(|window| window == random));
    }
}

#[tokio::test]
async fn revocation_is_immediate_and_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(pool(dir.path()).await).await.unwrap();
    let gate = Path::new("/g/a.git");
    let one = tokens.mint("a", "t1", gate).await.unwrap();
    let two = tokens.mint("a", "t2", gate).await.unwrap();
    let three = tokens.mint("b", "t1", gate).await.unwrap();
    assert_eq!(tokens.revoke_task("a", "t1").await.unwrap(), 1);
    assert_eq!(tokens.revoke_task("a", "t1").await.unwrap(), 0);
    assert_eq!(opens(&tokens, one.expose()), None);
    assert_eq!(opens(&tokens, two.expose()), of("a", "t2"));
    assert_eq!(tokens.revoke_scope("a").await.unwrap(), 1);
    let again = Tokens::open(pool(dir.path()).await).await.unwrap();
    assert_eq!(opens(&again, two.expose()), None);
    assert_eq!(opens(&again, three.expose()), of("b", "t1"));
}

#[tokio::test]
async fn use_is_written_down_later() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path()).await;
    let tokens = Tokens::open(pool.clone()).await.unwrap();
    let token = tokens.mint("a", "t", Path::new("/g/a.git")).await.unwrap();
    let last_used = || async {
        sqlx::query_scalar::<_, Option<String>>("SELECT last_used_at FROM gate_tokens")
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    tokens.flush().await.unwrap();
    assert_eq!(last_used().await, None);
    tokens.lookup(token.expose().as_bytes()).unwrap();
    assert_eq!(last_used().await, None);
    tokens.flush().await.unwrap();
    assert!(last_used().await.unwrap().parse::<Timestamp>().is_ok());
}

#[tokio::test]
async fn tokens_of_the_reference_stay_valid_until_they_are_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(pool(dir.path()).await).await.unwrap();
    let file = dir.path().join("tokens.json");
    let gate_of = |scope: &str| (scope != "gone").then(|| PathBuf::from(format!("/g/{scope}.git")));
    assert_eq!(
        tokens.import_reference(dir.path(), gate_of).await.unwrap(),
        0
    );

    let name = |digit: char| format!("terok-g-{}", String::from(digit).repeat(32));
    let write = |digits: &str| {
        let mut map = serde_json::Map::new();
        for digit in digits.chars() {
            let scope = if digit == 'c' { "gone" } else { "alpha" };
            let value = serde_json::json!({"scope": scope, "task": format!("t{digit}")});
            map.insert(name(digit), value);
        }
        map.insert(
            "not-a-token".into(),
            serde_json::json!({"scope": "alpha", "task": "x"}),
        );
        map.insert(name('f'), serde_json::json!(["wrong"]));
        std::fs::write(&file, serde_json::to_vec(&map).unwrap()).unwrap();
    };
    write("abc");
    assert_eq!(
        tokens.import_reference(dir.path(), gate_of).await.unwrap(),
        2
    );
    assert_eq!(tokens.count(), 2);
    let grant = tokens.lookup(name('a').as_bytes()).unwrap();
    assert_eq!(
        (grant.scope.as_str(), grant.task_id.as_str()),
        ("alpha", "ta")
    );
    assert_eq!(grant.gate_path, Path::new("/g/alpha.git"));

    // Revoked here, still in the file: stays revoked, also in the next life.
    assert_eq!(tokens.revoke_task("alpha", "ta").await.unwrap(), 1);
    assert_eq!(
        tokens.import_reference(dir.path(), gate_of).await.unwrap(),
        1
    );
    let again = Tokens::open(pool(dir.path()).await).await.unwrap();
    assert_eq!(
        again.import_reference(dir.path(), gate_of).await.unwrap(),
        1
    );
    assert_eq!(opens(&again, &name('a')), None);

    // A project that cannot be read for a while brings nothing back and loses nothing.
    let broken = |_: &str| None;
    assert_eq!(again.import_reference(dir.path(), broken).await.unwrap(), 0);
    assert_eq!(again.count(), 1);
    assert_eq!(
        again.import_reference(dir.path(), gate_of).await.unwrap(),
        1
    );
    assert_eq!(opens(&again, &name('a')), None);

    // A file that is not understood changes nothing; one that lost a token ends it.
    std::fs::write(&file, "{\"").unwrap();
    assert_eq!(
        again.import_reference(dir.path(), gate_of).await.unwrap(),
        0
    );
    assert_eq!(again.count(), 1);
    write("a");
    assert_eq!(
        again.import_reference(dir.path(), gate_of).await.unwrap(),
        0
    );
    assert_eq!(again.count(), 0);
}
