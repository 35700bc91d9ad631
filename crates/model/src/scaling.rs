//! How many instances of a version are kept ready, as it is said on the wire and as it is meant.
//!
//! There are two forms of saying it (contract section 4.8), an older one, [`Provision`], and a newer one, [`Scaling`]. Both
//! mean a [`Plan`]. What is given back is what was said, member by member.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::limits::InvalidField;
use crate::schedule::{Schedule, read_time, read_zone};

/// Most entries of one list.
const ENTRIES_MAX: usize = 100;
/// Longest name of an entry and other short text, in characters.
const NAME_CHARS_MAX: usize = 128;

/// The older form (contract section 4.8, `PutProvisionConfigInput`). Members that were never set stay absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Provision {
    /// How many instances while nothing below says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_target: Option<i64>,
    /// The same under its old name; counts only when the new one is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<i64>,
    /// Whether instances run on while they have no call; absent means that they do.
    #[serde(rename = "alwaysAllocateCPU", skip_serializing_if = "Option::is_none")]
    pub always_allocate_cpu: Option<bool>,
    /// Kept and given back.
    #[serde(rename = "alwaysAllocateGPU", skip_serializing_if = "Option::is_none")]
    pub always_allocate_gpu: Option<bool>,
    /// What happens at which time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_actions: Option<Vec<ScheduledAction>>,
    /// What follows the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_tracking_policies: Option<Vec<TargetTrackingPolicy>>,
}

/// The newer form (contract section 4.8, `PutScalingConfigInput`). Members that were never set stay absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scaling {
    /// How many instances while nothing below says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_instances: Option<i64>,
    /// Whether there may be more instances than are kept ready; absent means that there may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_on_demand_scaling: Option<bool>,
    /// Kept and given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_mix_mode: Option<bool>,
    /// Kept and given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_dispatch_policy: Option<String>,
    /// Kept and given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_pool_id: Option<String>,
    /// What happens at which time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_policies: Option<Vec<ScheduledAction>>,
    /// What follows the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub horizontal_scaling_policies: Option<Vec<ScalingPolicy>>,
}

/// A number of instances from a moment on (`ScheduledAction`, `ScheduledPolicy`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduledAction {
    /// Its name, once in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When; see [`Schedule::parse`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_expression: Option<String>,
    /// How many instances from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<i64>,
    /// It counts from here on; absent means from when it was put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// It counts until then; absent means for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// Whose clocks; absent means UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// A number of instances that follows the load, in the older form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetTrackingPolicy {
    /// Its name, once in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is measured; see [`Metric`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_type: Option<String>,
    /// What the measure is held at, above 0 and at most 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_target: Option<f64>,
    /// Never fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_capacity: Option<i64>,
    /// Never more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_capacity: Option<i64>,
    /// It counts from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// It counts until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// Whose clocks; absent means UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// The same, in the newer form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingPolicy {
    /// Its name, once in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is measured; see [`Metric`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_type: Option<String>,
    /// What the measure is held at, above 0 and at most 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_target: Option<f64>,
    /// Never fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_instances: Option<i64>,
    /// Never more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<i64>,
    /// It counts from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// It counts until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// Whose clocks; absent means UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// How many instances are kept ready, in whichever form it was said.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many while neither a schedule nor a policy is in force.
    pub base: usize,
    /// What was due last decides.
    pub scheduled: Vec<Scheduled>,
    /// The one that asks for most decides.
    pub tracked: Vec<Tracked>,
    /// Whether they run on while they have no call.
    pub runs_on: bool,
    /// Whether there may be more than are kept.
    pub on_demand: bool,
}

/// A number of instances from a moment on.
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// When.
    pub schedule: Schedule,
    /// How many.
    pub target: usize,
    /// While it counts.
    pub window: Window,
}

/// A number of instances that follows the load.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// What is measured.
    pub metric: Metric,
    /// What the measure is held at, above 0 and at most 1.
    pub target: f64,
    /// Never fewer.
    pub min: usize,
    /// Never more.
    pub max: usize,
    /// While it counts.
    pub window: Window,
}

/// What a policy follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Calls under way, in shares of those that all instances can take.
    Concurrency,
    /// Processor time, in shares of what all instances may use.
    Cpu,
}

/// From the one moment on until the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The first moment in it; none: no matter how early.
    pub from: Option<Timestamp>,
    /// The first moment after it; none: no matter how late.
    pub until: Option<Timestamp>,
}

impl Window {
    /// Whether the moment lies in it.
    #[must_use]
    pub fn contains(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

impl Provision {
    /// What it means. `instances_max` is what its account may have.
    ///
    /// # Errors
    /// The first member that is wrong.
    pub fn plan(&self, instances_max: usize) -> Result<Plan, InvalidField> {
        let (field, base) = match (self.default_target, self.target) {
            (None, Some(target)) => ("target", target),
            (target, _) => ("defaultTarget", target.unwrap_or(0)),
        };
        let tracked = self.target_tracking_policies.as_deref().unwrap_or_default();
        let tracked = tracked.iter().map(|policy| Following {
            name: policy.name.as_deref(),
            metric: policy.metric_type.as_deref(),
            target: policy.metric_target,
            min: ("minCapacity", policy.min_capacity),
            max: ("maxCapacity", policy.max_capacity),
            times: Times::of(&policy.start_time, &policy.end_time, &policy.time_zone),
        });
        Ok(Plan {
            base: instances(field, Some(base), instances_max)?,
            scheduled: scheduled("scheduledActions", self.scheduled_actions.as_deref(), instances_max)?,
            tracked: followed("targetTrackingPolicies", tracked.collect(), instances_max)?,
            runs_on: self.always_allocate_cpu.unwrap_or(true),
            on_demand: true,
        })
    }

    /// Whether it says nothing: no instance now and at no other time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let none = |target: Option<i64>| target.unwrap_or(0) == 0;
        none(self.default_target.or(self.target))
            && self.scheduled_actions.as_ref().is_none_or(Vec::is_empty)
            && self.target_tracking_policies.as_ref().is_none_or(Vec::is_empty)
    }
}

impl Scaling {
    /// What it means. `instances_max` is what its account may have.
    ///
    /// # Errors
    /// The first member that is wrong.
    pub fn plan(&self, instances_max: usize) -> Result<Plan, InvalidField> {
        for (field, text) in
            [("requestDispatchPolicy", &self.request_dispatch_policy), ("residentPoolId", &self.resident_pool_id)]
        {
            if text.as_ref().is_some_and(|text| text.chars().count() > NAME_CHARS_MAX || text.chars().any(char::is_control)) {
                return Err(InvalidField::new(field, format!("must be at most {NAME_CHARS_MAX} printable characters")));
            }
        }
        let tracked = self.horizontal_scaling_policies.as_deref().unwrap_or_default();
        let tracked = tracked.iter().map(|policy| Following {
            name: policy.name.as_deref(),
            metric: policy.metric_type.as_deref(),
            target: policy.metric_target,
            min: ("minInstances", policy.min_instances),
            max: ("maxInstances", policy.max_instances),
            times: Times::of(&policy.start_time, &policy.end_time, &policy.time_zone),
        });
        Ok(Plan {
            base: instances("minInstances", Some(self.min_instances.unwrap_or(0)), instances_max)?,
            scheduled: scheduled("scheduledPolicies", self.scheduled_policies.as_deref(), instances_max)?,
            tracked: followed("horizontalScalingPolicies", tracked.collect(), instances_max)?,
            runs_on: false,
            on_demand: self.enable_on_demand_scaling.unwrap_or(true),
        })
    }

    /// Whether it says nothing: no instance now and at no other time, and no call is refused for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.min_instances.unwrap_or(0) == 0
            && self.enable_on_demand_scaling.unwrap_or(true)
            && self.scheduled_policies.as_ref().is_none_or(Vec::is_empty)
            && self.horizontal_scaling_policies.as_ref().is_none_or(Vec::is_empty)
    }
}

/// From when until when an entry counts, as the wire says it.
struct Times<'a> {
    start: Option<&'a str>,
    end: Option<&'a str>,
    zone: Option<&'a str>,
}

impl<'a> Times<'a> {
    fn of(start: &'a Option<String>, end: &'a Option<String>, zone: &'a Option<String>) -> Self {
        let said = |text: &'a Option<String>| text.as_deref().filter(|text| !text.is_empty());
        Self { start: said(start), end: said(end), zone: said(zone) }
    }

    fn read(&self, within: &str) -> Result<(TimeZone, Window), InvalidField> {
        let wrong = |member: &str| {
            let field = format!("{within}.{member}");
            move |problem| InvalidField::new(field, problem)
        };
        let zone = read_zone(self.zone).map_err(wrong("timeZone"))?;
        let from = self.start.map(|text| read_time(text, &zone)).transpose().map_err(wrong("startTime"))?;
        let until = self.end.map(|text| read_time(text, &zone)).transpose().map_err(wrong("endTime"))?;
        if let (Some(from), Some(until)) = (from, until)
            && until <= from
        {
            return Err(wrong("endTime")(format!("must be after startTime (actual: {until}, which is not after {from})")));
        }
        Ok((zone, Window { from, until }))
    }
}

/// An entry of either form that follows the load; the members that have different names come with them.
struct Following<'a> {
    name: Option<&'a str>,
    metric: Option<&'a str>,
    target: Option<f64>,
    min: (&'static str, Option<i64>),
    max: (&'static str, Option<i64>),
    times: Times<'a>,
}

fn scheduled(list: &str, actions: Option<&[ScheduledAction]>, max: usize) -> Result<Vec<Scheduled>, InvalidField> {
    let actions = actions.unwrap_or_default();
    names(list, actions.iter().map(|action| action.name.as_deref()))?;
    let read = |(index, action): (usize, &ScheduledAction)| {
        let within = format!("{list}.{index}");
        let (zone, window) = Times::of(&action.start_time, &action.end_time, &action.time_zone).read(&within)?;
        let field = format!("{within}.scheduleExpression");
        let expression = action.schedule_expression.as_deref().unwrap_or_default();
        let schedule = Schedule::parse(expression, &zone).map_err(|problem| InvalidField::new(field, problem))?;
        let target = instances(&format!("{within}.target"), action.target, max)?;
        Ok(Scheduled { schedule, target, window })
    };
    actions.iter().enumerate().map(read).collect()
}

fn followed(list: &str, policies: Vec<Following<'_>>, most: usize) -> Result<Vec<Tracked>, InvalidField> {
    names(list, policies.iter().map(|policy| policy.name))?;
    let read = |(index, policy): (usize, Following<'_>)| {
        let within = format!("{list}.{index}");
        let metric = match policy.metric {
            Some("ProvisionedConcurrencyUtilization") => Metric::Concurrency,
            Some("CPUUtilization") => Metric::Cpu,
            other => {
                let given: String = other.unwrap_or_default().chars().take(64).flat_map(char::escape_debug).collect();
                let problem = format!(
                    "must be ProvisionedConcurrencyUtilization or CPUUtilization; this platform has no GPUs to measure (actual: '{given}')"
                );
                return Err(InvalidField::new(format!("{within}.metricType"), problem));
            }
        };
        let target = policy.target.filter(|target| *target > 0.0 && *target <= 1.0).ok_or_else(|| {
            let given = policy.target.map_or_else(|| "none".to_owned(), |target| target.to_string());
            InvalidField::new(format!("{within}.metricTarget"), format!("must be above 0 and at most 1 (actual: {given})"))
        })?;
        let min = instances(&format!("{within}.{}", policy.min.0), Some(policy.min.1.unwrap_or(0)), most)?;
        let max = instances(&format!("{within}.{}", policy.max.0), policy.max.1, most)?;
        if min > max {
            let problem = format!("must be at most {} (actual: {min}, which is more than {max})", policy.max.0);
            return Err(InvalidField::new(format!("{within}.{}", policy.min.0), problem));
        }
        let (_, window) = policy.times.read(&within)?;
        Ok(Tracked { metric, target, min, max, window })
    };
    policies.into_iter().enumerate().map(read).collect()
}

/// Every entry has a name, and each name is there once.
fn names<'a>(list: &str, names: impl Iterator<Item = Option<&'a str>>) -> Result<(), InvalidField> {
    let mut seen = HashSet::new();
    for (index, name) in names.enumerate() {
        if index >= ENTRIES_MAX {
            return Err(InvalidField::new(list, format!("must have at most {ENTRIES_MAX} entries")));
        }
        let field = format!("{list}.{index}.name");
        let name = name.filter(|name| !name.is_empty()).ok_or_else(|| InvalidField::new(&field, "is required"))?;
        if name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
            return Err(InvalidField::new(&field, format!("must be at most {NAME_CHARS_MAX} printable characters")));
        }
        if !seen.insert(name) {
            let shown: String = name.chars().flat_map(char::escape_debug).collect();
            return Err(InvalidField::new(&field, format!("is taken by an entry before it (actual: '{shown}')")));
        }
    }
    Ok(())
}

fn instances(field: &str, given: Option<i64>, max: usize) -> Result<usize, InvalidField> {
    let given = given.ok_or_else(|| InvalidField::new(field, "is required"))?;
    usize::try_from(given).ok().filter(|given| *given <= max).ok_or_else(|| {
        InvalidField::new(field, format!("must be between 0 and {max}, the most instances of an account (actual: {given})"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(value: serde_json::Value) -> String {
        let read: Provision = serde_json::from_value(value).expect("well-formed");
        read.plan(300).expect_err("it is wrong").to_string()
    }

    #[test]
    fn the_first_wrong_member_is_named() {
        let action = |changes: serde_json::Value| {
            let mut action = json!({"name": "a", "scheduleExpression": "cron(0 0 4 * * *)", "target": 1});
            for (name, value) in changes.as_object().expect("members") {
                action[name] = value.clone();
            }
            json!({"scheduledActions": [action]})
        };
        let policy = |changes: serde_json::Value| {
            let mut policy =
                json!({"name": "p", "metricType": "CPUUtilization", "metricTarget": 0.5, "minCapacity": 1, "maxCapacity": 2});
            for (name, value) in changes.as_object().expect("members") {
                policy[name] = value.clone();
            }
            json!({"targetTrackingPolicies": [policy]})
        };
        for (value, begins) in [
            (json!({"defaultTarget": -1}), "defaultTarget must be between 0 and 300"),
            (json!({"target": 301}), "target must be between 0 and 300"),
            (json!({"target": 1, "defaultTarget": i64::MAX}), "defaultTarget must be"),
            (action(json!({"target": null})), "scheduledActions.0.target is required"),
            (action(json!({"name": null})), "scheduledActions.0.name is required"),
            (action(json!({"scheduleExpression": "daily"})), "scheduledActions.0.scheduleExpression must be cron("),
            (action(json!({"timeZone": "Moon/Base"})), "scheduledActions.0.timeZone must be a time zone"),
            (action(json!({"startTime": "soon"})), "scheduledActions.0.startTime must be a time"),
            (
                action(json!({"startTime": "2026-01-02T00:00:00Z", "endTime": "2026-01-01T00:00:00Z"})),
                "scheduledActions.0.endTime must be after startTime",
            ),
            (policy(json!({"metricType": "GPUMemUtilization"})), "targetTrackingPolicies.0.metricType must be"),
            (policy(json!({"metricTarget": 0})), "targetTrackingPolicies.0.metricTarget must be above 0"),
            (policy(json!({"metricTarget": 1.01})), "targetTrackingPolicies.0.metricTarget must be above 0"),
            (policy(json!({"minCapacity": 3})), "targetTrackingPolicies.0.minCapacity must be at most maxCapacity"),
            (policy(json!({"maxCapacity": null})), "targetTrackingPolicies.0.maxCapacity is required"),
        ] {
            let problem = wrong(value.clone());
            assert!(problem.starts_with(begins), "{value}: {problem}");
        }
        let twice = action(json!({}))["scheduledActions"][0].clone();
        assert!(wrong(json!({"scheduledActions": [twice, twice]})).starts_with("scheduledActions.1.name is taken"));
        let many: Vec<_> = (0..101).map(|n| json!({"name": n.to_string()})).collect();
        assert!(wrong(json!({"scheduledActions": many})).contains("at most 100 entries"));
    }

    #[test]
    fn both_forms_mean_the_same() {
        let old: Provision = serde_json::from_value(json!({"target": 2})).unwrap();
        let new: Scaling = serde_json::from_value(json!({"minInstances": 2})).unwrap();
        let (old, new) = (old.plan(300).unwrap(), new.plan(300).unwrap());
        assert_eq!((old.base, old.on_demand, new.base, new.on_demand), (2, true, 2, true));
        assert!(old.runs_on, "the CPU is theirs unless something else is said");
        let off: Scaling = serde_json::from_value(json!({"enableOnDemandScaling": false})).unwrap();
        assert!(!off.plan(300).unwrap().on_demand && !off.is_empty() && Scaling::default().is_empty());
    }
}
