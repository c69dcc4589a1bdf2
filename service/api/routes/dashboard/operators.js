// What operators watch: activity over time, recent requests, slow work, the deployment.
import { html, useEffect, useMemo, useState } from "./vendor/preact-htm.js";
import { Chart, Meter, Parts } from "./charts.js";
import { ask, clock, ms, number, percent, plural, problemText, short, usePoll, usePolled } from "./service.js";

const STEPS = { 10: "last hour", 240: "last day" };
const Problem = ({ text }) => text && html`<p class="bad" role="alert">${text}</p>`;
const Table = ({ caption, heads, rows, empty }) => (rows.length ? html`<div class="scroll" tabindex="0" role="group" aria-label=${caption}><table class="stack"><caption class="sr">${caption}</caption>
  <thead><tr>${heads.map(([name, kind]) => html`<th scope="col" class=${kind || ""} key=${name}>${name}</th>`)}</tr></thead>
  <tbody>${rows.map((cells, at) => html`<tr key=${at}>${cells.map((cell, column) => html`<td class=${heads[column][1] || ""} data-label=${heads[column][0]} key=${column}>${cell ?? "–"}</td>`)}</tr>`)}</tbody></table></div>` : html`<p class="soft">${empty}</p>`);

/** The history's points of one series, asked for once and then kept up to date. */
function useHistory(step) {
  const empty = { points: [], problem: null };
  const begin = reset => {
    let since = 0;
    reset(empty);
    return async show => {
      const answer = await ask(`history?step_s=${step}&since_ms=${since}`);
      if (!answer.ok) { show(old => ({ ...old, problem: problemText(answer) })); return; }
      const fresh = answer.body.points, from = fresh[0]?.at_ms ?? Infinity;
      since = fresh.at(-1)?.at_ms ?? since;  // the last step goes on, so it is asked for again
      const oldest = Date.now() - (step === 10 ? 3600e3 : 86400e3);
      show(old => ({ points: [...old.points.filter(point => point.at_ms < from && point.at_ms > oldest), ...fresh], problem: null }));
    };
  };
  return usePolled(empty, begin, 5000, [step]);
}

/** The points with empty ones where nothing was measured, so that a gap is seen as a gap. */
function filled(points, step) {
  const out = [];
  for (const point of points) {
    const last = out.at(-1);
    if (last && point.at_ms - last.at_ms > 1000 * step) out.push({ at_ms: last.at_ms + 1000 * step, gap: true });
    out.push(point);
  }
  return out;
}
const sum = (points, pick) => points.reduce((total, point) => total + (point.gap ? 0 : pick(point) || 0), 0);
const namesOf = (points, field) => [...new Set(points.flatMap(point => Object.keys(point[field] || {})))].sort();

// What a program does that honest ones rarely do; other flags are told, but ring no bell.
const HARMLESS = ["module_unavailable", "stderr_truncated", "report_truncated", "rerun_alone", "nondeterministic", "process_limit"];
const isCheat = flag => !HARMLESS.includes(flag);

export function Activity({ info, theme }) {
  const [step, setStep] = useState(10);
  const { points: known, problem } = useHistory(step);
  const ended = known.length > 1 && known.at(-1).at_ms + 1000 * step > Date.now() ? known.slice(0, -1) : known;  // the last step goes on
  const points = useMemo(() => filled(ended, step), [ended.at(-1)?.at_ms, ended.length, step]);
  const times = useMemo(() => points.map(point => point.at_ms), [points]);
  const line = (label, pick, color) => ({ label, color, values: points.map(point => (point.gap ? null : pick(point) ?? null)) });
  const rate = (label, pick, color) => line(label, point => (pick(point) || 0) / step, color);
  const charts = [
    ["Requests", " per second", [rate("answered", point => point.requests - point.rejected - point.client_errors - point.server_errors, "--good"), rate("rejected", point => point.rejected, "--warn"), rate("client errors", point => point.client_errors, "--series-3"), rate("server errors", point => point.server_errors, "--bad")]],
    ["Latency", " ms", [line("half are faster", point => point.p50_ms), line("99 % are faster", point => point.p99_ms)]],
    ["Queues", " jobs", namesOf(points, "depth").map(name => line(name, point => point.depth?.[name]))],
    ["Work", " per second", [rate("programs", point => point.programs), rate("scores", point => point.scores), rate("from the cache", point => point.cached)]],
    ["Passed", " % of programs", [line("passed", point => (point.programs ? (100 * (point.verdicts?.passed || 0)) / point.programs : null), "--good")]],
    ["Mean score", "", namesOf(points, "score").map(name => line(name, point => point.score?.[name]?.mean))],
  ];
  const flags = namesOf(points, "flags").filter(isCheat);
  const violations = point => point.verdicts?.security_violation;
  const alarms = [["security violation", violations], ...flags.map(flag => [flag.replaceAll("_", " "), point => point.flags?.[flag]])]
    .map(([name, pick]) => ({ name, pick, total: sum(points, pick) })).filter(one => one.total > 0);
  const recent = points.filter(point => point.at_ms > Date.now() - 600e3), programs = sum(points, point => point.programs), recentPrograms = sum(recent, point => point.programs);
  const codes = namesOf(points, "codes").map(code => [code, sum(points, point => point.codes?.[code])]).sort((a, b) => b[1] - a[1]);
  const verdicts = namesOf(points, "verdicts").map(name => [name, sum(points, point => point.verdicts?.[name])]).sort((a, b) => b[1] - a[1]);
  const queues = Object.entries(info?.queues || {});
  return html`<${Problem} text=${problem} />
    <section><h2>Queues now</h2>${queues.length ? html`<div class="queues">${queues.map(([name, queue]) => {
      const unit = name === "execute" ? "CPU seconds" : "tokens";
      return html`<div class="queue" key=${name}><h3>${name === "execute" ? "programs" : `scores of ${name.slice(6)}`}</h3>
        <${Meter} name="jobs" value=${queue.depth} max=${queue.max_depth} text=${`${number(queue.depth)} of ${number(queue.max_depth)}`} />
        <${Meter} name=${unit} value=${queue.cost} max=${queue.max_cost} text=${`${number(queue.cost)} of ${number(queue.max_cost)}`} />
        <p class="soft">${queue.depth ? `the oldest waits ${ms(queue.oldest_ms)}` : "empty"}</p></div>`;
    })}</div>` : html`<p class="soft">nothing yet</p>`}</section>
    <section><h2>Over time <span class="row">${Object.entries(STEPS).map(([name, title]) => html`<label key=${name}><input type="radio" name="step" checked=${step === +name} onChange=${() => setStep(+name)} /> ${title}</label>`)}</span></h2>
      ${known.length ? html`<div class="charts">${charts.map(([title, unit, series]) => series.length > 0 && html`<${Chart} key=${title} title=${title} unit=${unit} times=${times} series=${series} theme=${theme} />`)}</div>` : html`<p class="soft">no history yet; the first point comes within ten seconds</p>`}</section>
    <section><h2>Cheating alarms <small>flags of programs, ${STEPS[step]}</small></h2>
      ${alarms.length ? html`<div class="charts"><${Chart} title="Flagged programs" unit=" per step" times=${times} series=${alarms.slice(0, 6).map(one => line(one.name, point => one.pick(point) || 0))} theme=${theme} /></div>
        <${Table} caption="Cheating alarms" empty="" heads=${[["what a program did"], [STEPS[step], "num"], ["last 10 minutes", "num"], ["of all programs", "num"], ["trend"]]}
          rows=${alarms.map(one => { const fresh = sum(recent, one.pick), share = fresh / (recentPrograms || 1), usual = one.total / (programs || 1); return [one.name, number(one.total), number(fresh), percent(usual), fresh > 3 && share > 2 * usual ? html`<b class="bad">more than twice as often as usual</b>` : "as usual"]; })} />` : html`<p class="soft">no program was flagged. The flags come with <code>"options": {"audit": true}</code>; security violations always count.</p>`}</section>
    <div class="two"><section><h2>Problems answered <small>${STEPS[step]}</small></h2><${Table} caption="Problems by code" empty="none" heads=${[["code"], ["requests", "num"]]} rows=${codes.map(([code, num]) => [html`<span class="mono">${code}</span>`, number(num)])} /></section>
      <section><h2>Verdicts <small>${STEPS[step]}</small></h2><${Table} caption="Verdicts" empty="no program has been judged" heads=${[["verdict"], ["programs", "num"], ["share", "num"]]} rows=${verdicts.map(([name, num]) => [name.replaceAll("_", " "), number(num), percent(num / (programs || 1))])} /></section></div>`;
}

// --- recent requests ---
const STAGES = [["read", "--series-4"], ["admitted", "--series-2"], ["first result", "--series-1"], ["last result", "--series-5"], ["answered", "--soft"]];
const STAGE_COLORS = Object.fromEntries(STAGES);
function wayOf(request) {
  const reached = { ...request.stages_ms, answered: request.took_ms };
  let before = 0;
  const parts = {};
  for (const [name] of STAGES) {
    const at = reached[name.replace(" ", "_")];
    if (at == null) continue;
    parts[name] = Math.max(0, at - before);
    before = Math.max(before, at);
  }
  return parts;
}
const outcome = status => (status < 400 ? "good" : status < 500 && status !== 429 ? "warn" : "bad");

export function Requests() {
  const [errors, setErrors] = useState(false);
  const [wanted, setWanted] = useState("");
  const [found, setFound] = useState(null);
  const { body, problem } = usePoll(`requests?limit=60${errors ? "&errors=true" : ""}`, 3000);
  const find = async id => {
    setWanted(id);
    if (!id.trim()) { setFound(null); return; }
    try { setFound(await ask(`requests/${encodeURIComponent(id.trim())}`)); } catch (error) { setFound({ ok: false, status: "", body: { detail: error.message } }); }
  };
  useEffect(() => {
    const linked = /^#requests=(.+)$/.exec(location.hash)?.[1];
    if (linked) find(decodeURIComponent(linked));
  }, []);
  return html`<${Problem} text=${problem} /><section><h2>Recent requests <small>last hour, newest first</small></h2>
    <form class="row" onSubmit=${event => { event.preventDefault(); find(wanted); }}><label><input type="checkbox" checked=${errors} onChange=${event => setErrors(event.target.checked)} /> only those that failed</label>
      <label for="wanted">X-Request-Id</label><input id="wanted" size="20" spellcheck=${false} value=${wanted} onInput=${event => setWanted(event.target.value)} /><button>Find</button></form>
    ${found && (found.ok ? html`<div class="found"><${RequestCard} request=${found.body} open=${true} /></div>` : html`<p class="bad" role="alert">${problemText(found)}</p>`)}
    <p class="key" aria-hidden="true">${STAGES.map(([name, color]) => html`<span key=${name}><i class="swatch" style=${{ background: `var(${color})` }}></i>until ${name}</span> `)}</p>
    ${body?.requests.length ? html`<ul class="cards">${body.requests.map(request => html`<li key=${request.request_id + request.at_ms}><${RequestCard} request=${request} /></li>`)}</ul>` : html`<p class="soft">${body ? (errors ? "none failed" : "none yet") : "asking …"}</p>`}</section>`;
}

function RequestCard({ request, open }) {
  const way = wayOf(request);
  const facts = [["id", html`<span class="mono">${request.request_id}</span>`], ["jobs", `${request.num_jobs}, of them ${request.num_cached} from the cache`], ["longest wait in the queue", ms(request.queue_ms)], ["work of all jobs", ms(request.compute_ms)], ["workers", request.workers.join(", ") || "–"], ["tenant", request.tenant || "–"], ...(request.trace_id ? [["trace", html`<span class="mono">${request.trace_id}</span>`]] : [])];
  return html`<details class="request" open=${open}><summary><span class="soft num">${clock(request.at_ms)}</span> <span class="mono">${request.method} ${request.route}</span>
      <span class=${`pill ${outcome(request.status)}`}>${request.status}${request.code && ` ${request.code}`}</span> <span class="num">${ms(request.took_ms)}</span>
      <${Parts} parts=${way} colors=${STAGE_COLORS} words=${ms} /></summary>
    ${request.detail && html`<p class="bad">${request.detail}</p>`}
    <dl>${facts.map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}
      ${Object.entries(way).map(([name, value]) => html`<dt key=${name}>until ${name}</dt><dd>${ms(value)}</dd>`)}</dl></details>`;
}

// --- slow work ---
const WHY = {
  queue: ["--series-2", "it waited for a worker: more workers, or callers that send less at once"],
  compile: ["--series-4", "the compiler took it: equal programs are compiled once"],
  cpu: ["--series-1", "program and tests used CPU time"],
  waiting: ["--series-5", "the program slept, or waited for something"],
  starvation: ["--bad", "other processes had the CPUs: too many executors for this host"],
  text: ["--series-3", "its own tokens: long texts"],
  others: ["--series-6", "it shared batches with other groups"],
  overhead: ["--soft", "jails, control programs, comparing; short runs on a busy host"],
};
const WHY_COLORS = Object.fromEntries(Object.entries(WHY).map(([name, [color]]) => [name, color]));

export function Slow() {
  const { body, problem } = usePoll("slow", 5000);
  const section = (title, samples, small, what) => html`<section><h2>${title} <small>${small}</small></h2>${samples.length ? html`<ol class="cards">${samples.slice(0, 20).map((sample, at) => html`<li class="card slow" key=${at}>
      <div class="label"><span><b>${ms(sample.total_ms)}</b> ${what(sample)}</span><span class="soft">${clock(sample.at_ms)}</span></div>
      <${Parts} parts=${sample.parts} colors=${WHY_COLORS} words=${ms} />
      <p><b>${sample.why}</b>: ${WHY[sample.why][1]}. <span class="soft">${Object.entries(sample.parts).map(([name, value]) => `${name} ${ms(value)}`).join(" · ")}</span></p>
      <p class="soft mono">item ${sample.item}${sample.index == null ? "" : `, program ${sample.index}`} of <a href=${`#requests=${encodeURIComponent(sample.request_id)}`}>${sample.request_id}</a>${sample.digest && ` · sha256 ${sample.digest}…`}${sample.trace_id && ` · trace ${sample.trace_id}`}</p></li>`)}</ol>` : html`<p class="soft">none in the last hour</p>`}</section>`;
  if (!body) return html`<${Problem} text=${problem} /><p class="soft">asking …</p>`;
  return html`<${Problem} text=${problem} /><p class="key">${Object.entries(WHY).map(([name, [color]]) => html`<span key=${name}><i class="swatch" style=${{ background: `var(${color})` }}></i>${name}</span> `)}</p>
    ${section("Slowest programs", body.programs, "from the queue to the verdict", sample => `${sample.language}, ${sample.verdict.replaceAll("_", " ")}, ${plural(sample.num_tests, `${sample.tests} test`)}, ${number(sample.num_bytes)} bytes${sample.slowest_test && `; slowest test ${sample.slowest_test}`}`)}
    ${section("Slowest suites", body.suites, "mean of a program", sample => `${plural(sample.num_tests, `${sample.tests} test`)} on ${plural(sample.num_programs, `${sample.language} program`)}${sample.slowest_test && `; slowest test ${sample.slowest_test}`}`)}
    ${section("Slowest prompts", body.prompts, "from the queue to the scores", sample => `${sample.model}, ${plural(sample.tokens, "token")} of ${plural(sample.num_programs, "completion")}`)}
    <p class="soft">Of a program or a prompt nothing is kept here but its digest and its size. Whoever sent it finds its text by <span class="mono">GET /requests/ID/replay</span>.</p>`;
}

// --- the deployment ---
export function Deployment({ info, theme }) {
  const { body, problem } = usePoll("workers", 3000);
  const { points } = useHistory(240);
  const workers = body?.workers || [], tenants = body?.tenants || [], models = info?.models || [];
  const drift = name => {
    const means = points.map(point => point.score?.[name]).filter(Boolean);
    if (means.length < 2) return "–";
    const num = means.slice(0, -1).reduce((total, one) => total + one.num, 0), mean = means.slice(0, -1).reduce((total, one) => total + one.mean * one.num, 0) / num;
    const change = means.at(-1).mean - mean, spread = means.at(-1).std || 1;
    return html`<span class=${Math.abs(change) > spread ? "bad" : ""}>${number(means.at(-1).mean)} (${change >= 0 ? "+" : ""}${number(change)} to the day before)</span>`;
  };
  const times = useMemo(() => points.map(point => point.at_ms), [points]);
  return html`<${Problem} text=${problem} />
    <section><h2>Workers <small>as of their last heartbeat</small></h2><${Table} caption="Workers" empty="no worker is alive" heads=${[["worker"], ["kind"], ["doing"], ["for", "num"], ["jobs done", "num"], ["serves"]]}
      rows=${workers.map(worker => [html`<span class="mono">${worker.host} ${worker.pid}</span>`, worker.kind === "score" ? "scores" : `executes, ${worker.isolation}`, worker.doing || html`<span class="soft">idle</span>`, worker.since_ms ? ms(Math.max(0, Date.now() - worker.since_ms)) : "–", number(worker.num_done), worker.serves.length > 6 ? html`<details><summary>${plural(worker.serves.length, "language")}</summary>${worker.serves.join(", ")}</details>` : worker.serves.join(", ")])} /></section>
    <section><h2>Tenants <small>their share of what waits or runs; requests of the last hour</small></h2><${Table} caption="Tenants" empty="none" heads=${[["key"], ["share of the queues"], ["requests", "num"]]}
      rows=${tenants.map(tenant => [html`<span class="mono">${tenant.tenant || "without a key"}</span>${tenant.own ? " (yours)" : ""}`, Object.keys(tenant.share).length ? Object.entries(tenant.share).map(([queue, share]) => html`<div key=${queue}>${queue}: ${percent(share)}</div>`) : html`<span class="soft">nothing waits</span>`, number(tenant.num_requests)])} /></section>
    <section><h2>Models</h2><${Table} caption="Models" empty="no scorer is alive" heads=${[["model"], ["revision"], ["what"], ["parity at start"], ["mean score now"], ["workers", "num"]]}
      rows=${models.map(model => [model.name, html`<span class="mono" title=${model.revision}>${short(model.revision.replace("sha256:", ""))}</span>`, `${model.architecture}, ${number(model.parameters)} parameters, ${model.dtype}, up to ${number(model.max_length)} tokens`, parity(model.parity), drift(model.name), number(model.workers)])} />
      ${points.length > 1 && models.length > 0 && html`<div class="charts"><${Chart} title="Mean score, last day" times=${times} theme=${theme} series=${models.map(model => ({ label: model.name, values: points.map(point => point.score?.[model.name]?.mean ?? null) }))} /></div>`}</section>
    <section><h2>Languages</h2>${info?.languages.length ? html`<ul class="chips">${info.languages.map(language => html`<li class="chip" key=${language.name}><b>${language.name}</b> <span class="soft">${language.version}</span></li>`)}</ul>` : html`<p class="soft">no executor is alive</p>`}</section>`;
}

function parity(measured) {
  if (!measured || measured.max_abs_error == null) return "–";
  const fine = measured.tolerance == null || measured.max_abs_error <= measured.tolerance;
  return html`<span class=${fine ? "good" : "bad"}>${fine ? "✓" : "✗"} ${measured.max_abs_error.toExponential(1)}</span> <span class="soft">of ${number(measured.n)} golden scores</span>`;
}
