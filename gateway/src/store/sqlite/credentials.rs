//! The vault's table and the credentials'.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, query};

use super::super::rows::{CredentialRow, Envelope, SecretRow};
use super::super::writer::{CredentialWrite, SecretWrite};
use super::super::{StoreError, from_nanos, to_nanos};
use super::apply::SqliteQuery;
use super::read::{Reader, id};
use crate::call::CallId;

pub(super) fn secret(write: &SecretWrite) -> SqliteQuery {
    match write {
        SecretWrite::Put(row) => query(
            "INSERT INTO secrets (name, version, key_id, wrapped_key, ciphertext, created_at, updated_at) VALUES (?,?,?,?,?,?,?) \
             ON CONFLICT (name) DO UPDATE SET version = excluded.version, key_id = excluded.key_id, \
             wrapped_key = excluded.wrapped_key, ciphertext = excluded.ciphertext, updated_at = excluded.updated_at",
        )
        .bind(row.name.clone())
        .bind(row.version)
        .bind(row.sealed.key_id.clone())
        .bind(row.sealed.wrapped_key.clone())
        .bind(row.sealed.ciphertext.clone())
        .bind(to_nanos(row.created_at))
        .bind(to_nanos(row.updated_at)),
        SecretWrite::Remove(name) => query("DELETE FROM secrets WHERE name = ?").bind(name.clone()),
    }
}

pub(super) fn credential(write: &CredentialWrite) -> SqliteQuery {
    let key = |id: &uuid::Uuid| id.as_bytes().to_vec();
    match write {
        CredentialWrite::Open(row) => query(
            "INSERT INTO credentials (credential_id, source, target, call_id, handle, created_at, expires_at, attempts, error) \
             VALUES (?,?,?,?,?,?,?,?,?)",
        )
        .bind(key(&row.id))
        .bind(row.source.clone())
        .bind(row.target.clone())
        .bind(row.call_id.0.as_bytes().to_vec())
        .bind(row.handle.clone())
        .bind(to_nanos(row.created_at))
        .bind(to_nanos(row.expires_at))
        .bind(row.attempts)
        .bind(row.error.clone()),
        CredentialWrite::Handle(id, handle) => {
            query("UPDATE credentials SET handle = ? WHERE credential_id = ?").bind(handle.clone()).bind(key(id))
        }
        CredentialWrite::Failed(id, error) => {
            query("UPDATE credentials SET attempts = attempts + 1, error = ? WHERE credential_id = ?")
                .bind(error.clone())
                .bind(key(id))
        }
        CredentialWrite::Close(id) => query("DELETE FROM credentials WHERE credential_id = ?").bind(key(id)),
    }
}

impl Reader {
    pub(in super::super) async fn secrets(&self) -> Result<Vec<SecretRow>, StoreError> {
        let rows = query("SELECT * FROM secrets ORDER BY name").fetch_all(self.pool()).await?;
        Ok(rows.iter().map(secret_row).collect::<Result<_, _>>()?)
    }

    pub(in super::super) async fn credentials(&self) -> Result<Vec<CredentialRow>, StoreError> {
        let rows = query("SELECT * FROM credentials ORDER BY created_at").fetch_all(self.pool()).await?;
        Ok(rows.iter().map(credential_row).collect::<Result<_, _>>()?)
    }
}

fn secret_row(row: &SqliteRow) -> Result<SecretRow, sqlx::Error> {
    let sealed = Envelope {
        key_id: row.try_get("key_id")?,
        wrapped_key: row.try_get("wrapped_key")?,
        ciphertext: row.try_get("ciphertext")?,
    };
    Ok(SecretRow {
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        sealed,
        created_at: from_nanos(row.try_get("created_at")?)?,
        updated_at: from_nanos(row.try_get("updated_at")?)?,
    })
}

fn credential_row(row: &SqliteRow) -> Result<CredentialRow, sqlx::Error> {
    Ok(CredentialRow {
        id: id(row, "credential_id")?,
        source: row.try_get("source")?,
        target: row.try_get("target")?,
        call_id: CallId(id(row, "call_id")?),
        handle: row.try_get("handle")?,
        created_at: from_nanos(row.try_get("created_at")?)?,
        expires_at: from_nanos(row.try_get("expires_at")?)?,
        attempts: row.try_get("attempts")?,
        error: row.try_get("error")?,
    })
}
