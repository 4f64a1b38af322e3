//! BuildKit's own progress records, a JSON document a line, for programs that read those of `docker buildx build --progress=rawjson`
//! (`SolveStatus` of its client: vertexes, statuses, logs, warnings).

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use oci::Digest;
use plan::{Plan, StepId};
use serde_json::{Value, json};
use solver::{Event, Reuse, Stream, Verdict};

use crate::lint::Found;
use crate::listing::tell;
use crate::progress::{Renderer, Shown, shown_steps};

/// Writes to standard error.
pub(crate) struct RawJson {
    records: Mutex<Records>,
}

impl RawJson {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { records: Mutex::new(Records::new(plan)) }
    }
}

impl Renderer for RawJson {
    fn event(&self, event: Event) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        // Written under the lock: records of one step stay in order.
        if let Some(record) = records.fold(event, &Timestamp::now().to_string()) {
            tell(record);
        }
    }

    fn finish(&self) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.end_all(&Timestamp::now().to_string()).iter().for_each(tell);
    }
}

/// What was found in the Dockerfile, as a warning in a record.
pub(crate) fn warning(found: &Found, source: &dockerfile::Source) -> Value {
    let line = source.position(found.span().start).line;
    let code = found.diagnostic.code;
    let short = format!("{code}: {} (line {line})", found.diagnostic.title);
    let detail: Vec<String> = found.diagnostic.help.iter().map(|help| STANDARD.encode(help)).collect();
    json!({
        "level": 1,
        "short": STANDARD.encode(short),
        "detail": detail,
        "range": [{ "start": { "line": line }, "end": { "line": line } }],
    })
}

/// Folds events into records.
struct Records {
    vertexes: Vec<Vertex>,
    /// Begun and not ended.
    open: BTreeSet<StepId>,
}

/// A step under the name that the records know it by.
struct Vertex {
    digest: String,
    inputs: Vec<String>,
    shown: Shown,
    started: Option<String>,
}

impl Records {
    fn new(plan: &Plan) -> Self {
        let digests: Vec<String> = plan
            .steps
            .iter()
            .map(|step| {
                Digest::of(format!("{} {} {}", step.id.index(), step.platform, step.title)).to_string()
            })
            .collect();
        let inputs = |step: &plan::Step| {
            let mut inputs: Vec<StepId> = step.op.parent().into_iter().chain(step.op.reads()).collect();
            inputs.sort_unstable();
            inputs.dedup();
            inputs.into_iter().map(|id| digests[id.index()].clone()).collect()
        };
        let vertexes = plan.steps.iter().zip(shown_steps(plan)).map(|(step, shown)| Vertex {
            digest: digests[step.id.index()].clone(),
            inputs: inputs(step),
            shown,
            started: None,
        });
        Self { vertexes: vertexes.collect(), open: BTreeSet::new() }
    }

    /// The record of an event at `now`, RFC 3339.
    fn fold(&mut self, event: Event, now: &str) -> Option<Value> {
        match event {
            Event::Started { step, .. } => {
                self.open.insert(step);
                self.vertexes[step.index()].started = Some(now.to_owned());
                Some(json!({ "vertexes": [self.vertex(step)] }))
            }
            Event::Waiting { .. } => None,
            Event::Log { step, stream, bytes } => Some(json!({ "logs": [{
                "vertex": self.vertexes[step.index()].digest,
                "stream": match stream { Stream::Stdout => 1, Stream::Stderr => 2 },
                "data": STANDARD.encode(bytes),
                "timestamp": now,
            }] })),
            Event::Progress { step, bytes, total_bytes } => Some(json!({ "statuses": [{
                "id": self.vertexes[step.index()].shown.title,
                "vertex": self.vertexes[step.index()].digest,
                "total": total_bytes,
                "current": bytes,
                "timestamp": now,
            }] })),
            Event::Warning { step, message } => Some(json!({ "warnings": [{
                "vertex": self.vertexes[step.index()].digest,
                "level": 1,
                "short": STANDARD.encode(message),
            }] })),
            Event::Finished { step, outcome, .. } => self.finished(step, &outcome.verdict, now),
        }
    }

    fn finished(&mut self, step: StepId, verdict: &Verdict, now: &str) -> Option<Value> {
        self.open.remove(&step);
        let is_cached = match verdict {
            // As with BuildKit, what nobody needs is no part of the build.
            Verdict::Reused { by: Reuse::NotNeeded, .. } => return None,
            Verdict::Reused { .. } => true,
            Verdict::Ran { .. } => false,
        };
        self.vertexes[step.index()].started.get_or_insert_with(|| now.to_owned());
        let mut vertex = self.vertex(step);
        vertex["completed"] = now.into();
        if is_cached {
            vertex["cached"] = true.into();
        }
        Some(json!({ "vertexes": [vertex] }))
    }

    /// What was begun and never came to its end, in a build that failed.
    fn end_all(&mut self, now: &str) -> Vec<Value> {
        let open = std::mem::take(&mut self.open);
        let end = |step: StepId| {
            let mut vertex = self.vertex(step);
            vertex["completed"] = now.into();
            vertex["error"] = "did not complete successfully".into();
            json!({ "vertexes": [vertex] })
        };
        open.into_iter().map(end).collect()
    }

    fn vertex(&self, step: StepId) -> Value {
        let Vertex { digest, inputs, shown, started } = &self.vertexes[step.index()];
        let name = format!("{} {}", shown.label, shown.title);
        let mut vertex = json!({ "digest": digest, "name": name });
        if !inputs.is_empty() {
            vertex["inputs"] = json!(inputs);
        }
        if let Some(started) = started {
            vertex["started"] = started.as_str().into();
        }
        vertex
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{all_events, plan_of};
    use expect_test::expect;

    #[test]
    fn events_become_records_of_the_reference_builders_shape() {
        let plan = plan_of("FROM scratch\nCOPY a /a\nRUN make\n");
        let mut records = Records::new(&plan);
        let mut lines: Vec<String> = Vec::new();
        for event in all_events(&plan) {
            lines.extend(records.fold(event, "2026-01-01T00:00:00Z").map(|record| record.to_string()));
        }
        lines.extend(records.end_all("2026-01-01T00:00:01Z").iter().map(ToString::to_string));
        let mut text = lines.join("\n");
        for vertex in &records.vertexes {
            text = text.replace(&vertex.digest, &vertex.shown.label);
        }
        expect![[r#"
            {"vertexes":[{"digest":"[stage-0 1/2]","name":"[stage-0 1/2] COPY a /a","inputs":["[-]"],"started":"2026-01-01T00:00:00Z","completed":"2026-01-01T00:00:00Z","cached":true}]}
            {"vertexes":[{"digest":"[stage-0 2/2]","name":"[stage-0 2/2] RUN make","inputs":["[stage-0 1/2]"],"started":"2026-01-01T00:00:00Z"}]}
            {"logs":[{"vertex":"[stage-0 2/2]","stream":1,"data":"eAo=","timestamp":"2026-01-01T00:00:00Z"}]}
            {"statuses":[{"id":"RUN make","vertex":"[stage-0 2/2]","total":2,"current":1,"timestamp":"2026-01-01T00:00:00Z"}]}
            {"warnings":[{"vertex":"[stage-0 2/2]","level":1,"short":"bWluZA=="}]}
            {"vertexes":[{"digest":"[stage-0 2/2]","name":"[stage-0 2/2] RUN make","inputs":["[stage-0 1/2]"],"started":"2026-01-01T00:00:00Z","completed":"2026-01-01T00:00:01Z","error":"did not complete successfully"}]}"#]].assert_eq(&text);
    }
}
