//! What this daemon built, kept over restarts: proof of whose an image is once its labels and names do not tell.

use crate::store::Store;
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};
use terok_proto::Fault;
use terok_proto::image::Layer;

/// The tables.
#[derive(Clone, Debug)]
pub(super) struct Records {
    store: Store,
}

/// One built image.
#[derive(Clone, Debug)]
pub(super) struct Record<'a> {
    pub(super) image_id: &'a str,
    pub(super) layer: Layer,
    pub(super) tag: &'a str,
    pub(super) project_id: Option<&'a str>,
    pub(super) base: &'a str,
    pub(super) content_hash: &'a str,
    /// Of what is installed, if the build told them.
    pub(super) versions: Option<&'a BTreeMap<String, String>>,
}

impl Records {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Notes an image. Versions that are known stay known when the same image comes out of the cache.
    pub(super) async fn add(&self, record: &Record<'_>) -> Result<(), Fault> {
        let versions = record
            .versions
            .and_then(|versions| serde_json::to_string(versions).ok());
        let mut writer = self.store.writer().await;
        sqlx::query(
            "INSERT INTO images (image_id, layer, tag, project_id, base, content_hash, versions, built_at) \
             VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (image_id) DO UPDATE SET layer = excluded.layer, tag = excluded.tag, \
             project_id = excluded.project_id, base = excluded.base, content_hash = excluded.content_hash, \
             versions = coalesce(excluded.versions, versions), built_at = excluded.built_at",
        )
        .bind(record.image_id)
        .bind(record.layer.name())
        .bind(record.tag)
        .bind(record.project_id)
        .bind(record.base)
        .bind(record.content_hash)
        .bind(versions)
        .bind(jiff::Timestamp::now().to_string())
        .execute(&mut *writer)
        .await
        .map_err(|error| self.store.fault("remember an image", &error))?;
        Ok(())
    }

    /// Ids of all images that are remembered.
    pub(super) async fn ids(&self) -> Result<BTreeSet<String>, Fault> {
        let mut reader = self.store.reader().await;
        let ids: Vec<String> = sqlx::query_scalar("SELECT image_id FROM images")
            .fetch_all(&mut *reader)
            .await
            .map_err(|error| self.store.fault("read which images were built", &error))?;
        Ok(ids.into_iter().collect())
    }

    /// Versions of what is installed in an image, as its build told them.
    pub(super) async fn versions(
        &self,
        image_id: &str,
    ) -> Result<Option<BTreeMap<String, String>>, Fault> {
        let mut reader = self.store.reader().await;
        let row = sqlx::query("SELECT versions FROM images WHERE image_id = ?")
            .bind(image_id)
            .fetch_optional(&mut *reader)
            .await
            .map_err(|error| self.store.fault("read which images were built", &error))?;
        let text: Option<String> = row.and_then(|row| row.try_get("versions").ok().flatten());
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Forgets images.
    pub(super) async fn forget(&self, ids: impl Iterator<Item = &String>) -> Result<(), Fault> {
        let mut writer = self.store.writer().await;
        for gone in ids {
            sqlx::query("DELETE FROM images WHERE image_id = ?")
                .bind(gone)
                .execute(&mut *writer)
                .await
                .map_err(|error| self.store.fault("forget an image", &error))?;
        }
        Ok(())
    }

    /// The cache-bust value that was last used on a base.
    pub(super) async fn bust(&self, base: &str) -> Result<Option<String>, Fault> {
        let mut reader = self.store.reader().await;
        sqlx::query_scalar("SELECT cache_bust FROM image_busts WHERE base = ?")
            .bind(base)
            .fetch_optional(&mut *reader)
            .await
            .map_err(|error| self.store.fault("read how images were built", &error))
    }

    /// Remembers the cache-bust value of a base.
    pub(super) async fn set_bust(&self, base: &str, bust: &str) -> Result<(), Fault> {
        let mut writer = self.store.writer().await;
        sqlx::query("INSERT OR REPLACE INTO image_busts (base, cache_bust) VALUES (?,?)")
            .bind(base)
            .bind(bust)
            .execute(&mut *writer)
            .await
            .map_err(|error| self.store.fault("remember how images were built", &error))?;
        Ok(())
    }
}
