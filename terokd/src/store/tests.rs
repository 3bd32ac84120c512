use super::*;
use std::os::unix::fs::MetadataExt;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = dir
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn everything_is_private() {
    let dir = tempfile::tempdir().unwrap();
    // What an earlier, careless hand left.
    std::fs::create_dir(dir.path().join("terokd")).unwrap();
    std::fs::set_permissions(dir.path().join("terokd"), Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("terokd/state ?#%20.db");
    let _store = Store::open(&path).await.unwrap();
    assert_eq!(
        path.parent().unwrap().metadata().unwrap().mode() & 0o777,
        0o700
    );
    let found = names(path.parent().unwrap());
    assert!(found.iter().any(|n| n == "state ?#%20.db-wal"), "{found:?}");
    for name in found {
        let mode = path
            .parent()
            .unwrap()
            .join(&name)
            .metadata()
            .unwrap()
            .mode()
            & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[tokio::test]
async fn the_schema_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    for _ in 0..2 {
        let store = Store::open(&path).await.unwrap();
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *store.reader().await)
            .await
            .unwrap();
        assert_eq!(version, i64::try_from(MIGRATIONS.len()).unwrap());
    }
}

#[tokio::test]
async fn a_second_daemon_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let first = Store::open(&path).await.unwrap();
    let fault = Store::open(&path).await.unwrap_err();
    assert_eq!(fault.kind, Kind::StorageError);
    assert!(fault.message.contains("another terokd"), "{fault}");
    drop(first);
    Store::open(&path).await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let garbage = b"this was never a database\n".repeat(500);
    std::fs::write(&path, &garbage).unwrap();
    let store = Store::open(&path).await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM operations")
        .fetch_one(&mut *store.reader().await)
        .await
        .unwrap();
    assert_eq!(count, 0);
    let kept: Vec<String> = names(dir.path())
        .into_iter()
        .filter(|n| n.starts_with("state.db.corrupt-"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(std::fs::read(dir.path().join(&kept[0])).unwrap(), garbage);
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Store::open(&path).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 99")
        .execute(&mut *store.writer().await)
        .await
        .unwrap();
    drop(store);
    let fault = Store::open(&path).await.unwrap_err();
    assert_eq!(fault.kind, Kind::StorageError);
    assert!(fault.message.contains("newer terokd (schema 99"), "{fault}");
    assert!(fault.message.contains("state.db"), "{fault}");
    assert!(fault.data.contains_key("hint"));
    assert!(!names(dir.path()).iter().any(|n| n.contains("corrupt")));
}

#[tokio::test]
async fn a_damaged_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Store::open(&path).await.unwrap();
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut *store.writer().await)
        .await
        .unwrap();
    drop(store);
    // The header stays: it is a database, but its schema page is not readable.
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in &mut bytes[100..] {
        *byte = 0xee;
    }
    std::fs::remove_file(beside(&path, "-wal")).ok();
    std::fs::remove_file(beside(&path, "-shm")).ok();
    std::fs::write(&path, &bytes).unwrap();
    let fault = Store::open(&path).await.unwrap_err();
    assert_eq!(fault.kind, Kind::StorageError);
    assert!(fault.message.contains("state.db"), "{fault}");
    assert!(fault.data.contains_key("hint"), "{fault:?}");
    assert!(!names(dir.path()).iter().any(|n| n.contains("corrupt")));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn a_place_that_cannot_hold_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let fault = Store::open(&file.join("terokd/state.db"))
        .await
        .unwrap_err();
    assert_eq!(fault.kind, Kind::StorageError);
    assert!(fault.message.contains("file/terokd"), "{fault}");
    assert!(fault.data.contains_key("hint"), "{fault:?}");

    let taken = dir.path().join("state.db");
    std::fs::create_dir(&taken).unwrap();
    let fault = Store::open(&taken).await.unwrap_err();
    assert_eq!(fault.kind, Kind::StorageError);
    assert!(fault.message.contains("state.db"), "{fault}");
    assert!(taken.is_dir());
}
