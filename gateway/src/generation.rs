//! Catalog and policy as one immutable generation: a call pins one, a reload swaps the whole or nothing.

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::call::CallRequest;
use crate::caller::Caller;
use crate::catalog::definition::Tier;
use crate::catalog::{Catalog, CatalogError, Rules, Tool};
use crate::config::{Config, PolicyConfig};
use crate::error::CallError;
use crate::policy::{Policy, PolicyLoadError, PolicySettings};
use crate::view::ToolView;

/// One consistent set of tools and rules.
pub struct Generation {
    /// Lower-case hex SHA-256 over both digests; in every call's record.
    pub digest: String,
    /// The tools.
    pub catalog: Catalog,
    /// The rules.
    pub policy: Policy,
    /// When it was read.
    pub loaded_at: OffsetDateTime,
}

/// A generation that was refused. The one before it stays.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// A tool definition is wrong.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The policy does not load.
    #[error(transparent)]
    Policy(#[from] PolicyLoadError),
}

/// Why a tool is not there for a caller. All look the same from outside; the record keeps them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// No tool has this name.
    Unknown,
    /// Its tier is `forbidden`, or policy hides it from this caller.
    Hidden,
}

impl Generation {
    /// Reads everything that `config` names.
    ///
    /// # Errors
    /// Every problem of the first part that has any.
    pub fn load(config: &Config) -> Result<Self, GenerationError> {
        let (allow_tags, start_timeout) = (config.kubernetes.allow_tags, config.start_timeout);
        let sources = Some(config.credentials.iter().map(|(name, source)| (name.clone(), source.offer())).collect());
        let rules = Rules { allow_tags, start_timeout, sources, ..Rules::now(&config.allowed_mounts) };
        let catalog = Catalog::load(&config.tools, &rules)?;
        let policy = Policy::load(&config.policy.path, config.policy.data.as_deref(), &policy_settings(&config.policy))?;
        let digest = hex::encode(Sha256::new().chain_update(catalog.digest()).chain_update(policy.digest()).finalize());
        Ok(Self { digest, catalog, policy, loaded_at: OffsetDateTime::now_utc() })
    }

    /// Tells the operator what to know of it although it loaded.
    pub fn warn(&self) {
        for note in self.policy.notes() {
            tracing::warn!(%note, "policy");
        }
        for warning in self.catalog.warnings() {
            tracing::warn!(%warning, "tools");
        }
    }

    /// The folders and files a generation is made of.
    pub fn sources(config: &Config) -> Vec<PathBuf> {
        let policy = [config.policy.path.clone()].into_iter().chain(config.policy.data.clone());
        config.tools.iter().cloned().chain(policy).collect()
    }

    /// The tool a request means, in this caller's view.
    ///
    /// # Errors
    /// The error to show, with the true reason where it is hidden.
    pub fn resolve(&self, caller: &Caller, request: &CallRequest) -> Result<Arc<Tool>, (CallError, Option<Absence>)> {
        let absent = |why| (CallError::UnknownTool(request.tool.clone()), Some(why));
        let tool = self.catalog.get(&request.tool).ok_or_else(|| absent(Absence::Unknown))?;
        if !self.sees(caller, tool) {
            return Err(absent(Absence::Hidden));
        }
        match &request.version {
            Some(wanted) if *wanted != tool.definition.version => {
                let (tool, served) = (request.tool.clone(), tool.definition.version.clone());
                Err((CallError::UnknownVersion { tool, served }, None))
            }
            _ => Ok(tool.clone()),
        }
    }

    /// Every tool this caller may see.
    pub fn visible(&self, caller: &Caller) -> Vec<ToolView> {
        let open: Vec<_> = self.catalog.iter().filter(|tool| tool.definition.tier != Tier::Forbidden).collect();
        let names = open.iter().map(|tool| tool.definition.name.as_str());
        let shown = self.policy.visible(caller, OffsetDateTime::now_utc(), names);
        open.iter().filter(|tool| shown.contains(tool.definition.name.as_str())).map(|tool| ToolView::from(&***tool)).collect()
    }

    /// Whether a tool is there for this caller.
    pub fn sees(&self, caller: &Caller, tool: &Tool) -> bool {
        let name = tool.definition.name.as_str();
        tool.definition.tier != Tier::Forbidden && self.policy.visible(caller, OffsetDateTime::now_utc(), [name]).contains(name)
    }
}

fn policy_settings(config: &PolicyConfig) -> PolicySettings {
    PolicySettings {
        package: config.package.clone(),
        timezone: config.timezone.clone(),
        environment: config.environment.clone(),
        time_limit: config.time_limit,
    }
}
