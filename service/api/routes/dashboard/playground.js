// The playground: a prompt, programs and tests; who wins, and why. Its whole state can travel behind the # of a link.
import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { Code, Editor } from "./charts.js";
import { ask, ms, number, pack, plural, problemText, unpack } from "./service.js";
import { EXAMPLES } from "./examples.js";

const KINDS = {
  assert: { name: "asserts", hint: "one assert per line; a line that begins with a space goes on with the one before", languages: "python" },
  function: { name: "function calls", hint: "one call per line: arguments as JSON, an arrow, the value expected: 1, 2 -> 3" },
  stdio: { name: "standard input and output", hint: "each case runs the program once" },
  pytest: { name: "pytest", hint: "a test file; the program's names are there", code: true },
  unittest: { name: "unittest", hint: "a test file with TestCase classes", code: true },
  check: { name: "check(candidate)", hint: "Python that defines check(candidate); needs the name of the function", code: true },
  script: { name: "script", hint: "code that is run together with the program; exit code 0 is passed", code: true },
  json: { name: "JSON (any kind)", hint: "the field `tests` of a request, with files, a checker, an interactor, a reference" },
  none: { name: "no tests", hint: "the prompt's own examples decide, then what most programs answer alike, then the model" },
};
const NEEDS_NAME = ["function", "check"];
const SPECS = { default: "tests first, the reward model breaks ties", model: "the reward model alone", json: "a spec of your own (JSON)" };

/** The tests of a request, or null. Throws an Error that says what cannot be read. */
export function testsOf(state) {
  const text = state.tests[state.kind] || "", name = state.entry.trim();
  const named = name ? { entry_point: name } : {};
  switch (state.kind) {
    case "none": return null;
    case "json": return JSON.parse(text);
    case "stdio": return { kind: "stdio", cases: state.cases.map(({ stdin, stdout }) => ({ stdin, stdout })) };
    case "assert": {
      const asserts = [];
      for (const line of text.split("\n")) {
        if (/^\s/.test(line) && asserts.length) asserts[asserts.length - 1] += `\n${line}`;
        else if (line.trim()) asserts.push(line);
      }
      return { kind: "assert", asserts, ...named };
    }
    case "function": {
      const cases = text.split("\n").filter(line => line.trim()).map((line, at) => {
        const arrow = line.lastIndexOf("->");
        if (arrow < 0) throw new Error(`call ${at + 1} has no ->: write  1, 2 -> 3`);
        try {
          return { args: JSON.parse(`[${line.slice(0, arrow)}]`), expected: JSON.parse(line.slice(arrow + 2)) };
        } catch {
          throw new Error(`call ${at + 1}: arguments and value are JSON, such as  "a", [1, 2] -> true`);
        }
      });
      return { kind: "function", entry_point: name, cases };
    }
    case "check": return { kind: "check", test: text, entry_point: name };
    case "script": return { kind: "script", source: text };
    default: return { kind: state.kind, source: text, ...named };
  }
}

/** The bodies to send: of /rank, and of /execute where there are tests. */
export function requestsOf(state) {
  const programs = state.programs.filter(text => text.trim()), tests = testsOf(state);
  const extract = programs.some(text => /^```/m.test(text)) ? { extract: "last_fence" } : {};
  const item = { prompt: state.prompt, language: state.language, completions: programs, ...(tests ? { tests } : {}), ...extract };
  const spec = state.by === "model" ? { spec: { terms: [{ name: "rm", type: "score" }] } } : state.by === "json" ? { spec: JSON.parse(state.spec) } : {};
  const options = state.audit ? { options: { audit: true } } : {};
  return {
    rank: { items: [item], ...spec },
    execute: tests && { items: [{ language: state.language, programs, tests, ...extract, ...options }] },
  };
}

const python = (value, indent = "") => {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return value.length ? `[\n${value.map(one => `${inner}${python(one, inner)},\n`).join("")}${indent}]` : "[]";
  if (typeof value === "object") return `{\n${Object.entries(value).map(([name, one]) => `${inner}${JSON.stringify(name)}: ${python(one, inner)},\n`).join("")}${indent}}`;
  return JSON.stringify(value);
};
export function snippets(body) {
  const here = new URL(".", location.href).href.replace(/\/$/, "");
  const { items, ...options } = body;
  const given = Object.entries(options).map(([name, value]) => `, ${name}=${python(value, "    ")}`).join("");
  return {
    curl: `curl ${here}/rank -H 'Content-Type: application/json' -d '${JSON.stringify(body, null, 1).replaceAll("'", "'\\''")}'`,
    python: `from plaudit import Client\n\nwith Client("${here}") as client:\n    answer = client.rank(${python(items, "    ")}${given})\nprint(answer.results[0].order)\n`,
  };
}

const Copy = ({ text, label }) => {
  const [said, say] = useState("");
  const copy = async () => {
    try { await navigator.clipboard.writeText(text); say("copied"); } catch { say("select it and copy it by hand"); }
  };
  return html`<span><button type="button" onClick=${copy}>${label}</button> <span role="status" class="soft">${said}</span></span>`;
};

export function Playground({ languages }) {
  const [state, setState] = useState(EXAMPLES[0].state);
  const [result, setResult] = useState(null);
  const [status, setStatus] = useState("");
  const [busy, setBusy] = useState(false);
  const [link, setLink] = useState("");
  const set = change => { setLink(""); setState(old => ({ ...old, ...change })); };

  useEffect(() => {
    const load = async () => {
      const packed = /^#play=(.+)$/.exec(location.hash)?.[1];
      if (!packed) return;
      try { setState({ ...EXAMPLES[0].state, ...(await unpack(packed)) }); } catch { setStatus("this link cannot be read: it may have been cut off"); }
    };
    load();
    addEventListener("hashchange", load);
    return () => removeEventListener("hashchange", load);
  }, []);

  const known = languages.find(language => language.name === state.language || language.aliases.includes(state.language));
  const kinds = Object.keys(KINDS).filter(kind => kind === "json" || kind === "none" || !known || known.kinds.includes(kind));
  const names = languages.length ? languages.map(language => language.name) : [state.language];
  let bodies = null, unreadable = "";
  try { bodies = requestsOf(state); } catch (error) { unreadable = error.message; }

  const run = async event => {
    event.preventDefault();
    if (!bodies) { setStatus(unreadable); return; }
    if (!bodies.rank.items[0].completions.length) { setStatus("write a program first"); return; }
    setBusy(true);
    setStatus("working …");
    const began = performance.now(), deadline = { deadline_ms: 60000 };
    try {
      const send = (path, body) => ask(path, { body: { ...body, ...deadline }, timeoutMs: 70000 });
      const [ranked, executed] = await Promise.all([send("rank", bodies.rank), bodies.execute ? send("execute", bodies.execute) : null]);
      const failed = [ranked, executed].find(answer => answer && !answer.ok);
      if (failed) { setResult(null); setStatus(problemText(failed)); return; }
      setResult({ state, ranking: ranked.body.results[0], executed: executed?.body.results[0].programs, requestId: ranked.requestId, completions: bodies.rank.items[0].completions });
      setStatus(`${ranked.body.status === "partial" ? "the deadline came first: partly " : ""}done in ${ms(performance.now() - began)}`);
    } catch (error) {
      setStatus(`no answer: ${error.message}`);
    } finally {
      setBusy(false);
    }
  };
  const share = async () => {
    const hash = `#play=${await pack(state)}`;
    history.replaceState(null, "", hash);
    setLink(location.href);
    try { await navigator.clipboard.writeText(location.href); } catch { /* the field below has it */ }
  };
  const lists = { programs: state.programs, cases: state.cases };
  const change = (name, at, value) => set({ [name]: lists[name].map((one, index) => (index === at ? value : one)) });
  const remove = (name, at) => set({ [name]: lists[name].filter((_, index) => index !== at) });
  const setText = text => set({ tests: { ...state.tests, [state.kind]: text } });
  const kind = KINDS[state.kind];

  return html`<form class="playground" onSubmit=${run}>
    <div class="row"><label for="example">Example</label>
      <select id="example" onChange=${event => { setResult(null); set(EXAMPLES[event.target.value].state); }}>${EXAMPLES.map((one, at) => html`<option value=${at}>${one.name}</option>`)}</select>
      <label for="language">Language</label>
      <select id="language" value=${state.language} onChange=${event => set({ language: event.target.value })}>${names.map(name => html`<option key=${name} value=${name} selected=${name === state.language}>${name}</option>`)}</select></div>
    <div class="two">
      <div>
        <label for="prompt">Prompt</label>
        <${Editor} id="prompt" label="Prompt" value=${state.prompt} language="text" rows=${3} onInput=${prompt => set({ prompt })} />
        <fieldset><legend>Tests</legend>
          <div class="row"><label for="kind">Kind</label>
            <select id="kind" value=${state.kind} onChange=${event => set({ kind: event.target.value })}>${kinds.map(name => html`<option key=${name} value=${name} selected=${name === state.kind}>${KINDS[name].name}</option>`)}</select>
            ${["assert", "function", "check", "pytest", "unittest"].includes(state.kind) && html`<label for="entry">Function${NEEDS_NAME.includes(state.kind) ? "" : " (optional)"}</label>
              <input id="entry" size="12" spellcheck=${false} value=${state.entry} onInput=${event => set({ entry: event.target.value })} />`}</div>
          <p class="soft hint">${kind.hint}</p>
          ${state.kind === "stdio" ? html`<div>${state.cases.map((one, at) => html`<div class="case" key=${at}>
              <div><span class="soft">input ${at + 1}</span><${Editor} label=${`Input of case ${at + 1}`} value=${one.stdin} language="text" rows=${2} onInput=${stdin => change("cases", at, { ...one, stdin })} /></div>
              <div><span class="soft">output expected</span><${Editor} label=${`Output of case ${at + 1}`} value=${one.stdout} language="text" rows=${2} onInput=${stdout => change("cases", at, { ...one, stdout })} /></div>
              <button type="button" aria-label=${`Remove case ${at + 1}`} onClick=${() => remove("cases", at)}>×</button></div>`)}
              <button type="button" onClick=${() => set({ cases: [...state.cases, { stdin: "", stdout: "" }] })}>Add a case</button></div>`
            : state.kind !== "none" && html`<${Editor} label="Tests" value=${state.tests[state.kind] || ""} language=${state.kind === "json" || state.kind === "function" ? "json" : state.kind === "script" ? state.language : "python"} rows=${4} onInput=${setText} />`}
          ${unreadable && html`<p class="bad" role="alert">${unreadable}</p>`}
        </fieldset>
        <div class="row"><label for="by">Ranked by</label>
          <select id="by" value=${state.by} onChange=${event => set({ by: event.target.value })}>${Object.entries(SPECS).map(([name, text]) => html`<option value=${name} selected=${name === state.by}>${text}</option>`)}</select>
          <label><input type="checkbox" checked=${state.audit} onChange=${event => set({ audit: event.target.checked })} /> flag what cheats do</label></div>
        ${state.by === "json" && html`<${Editor} label="Spec" value=${state.spec} language="json" rows=${4} onInput=${spec => set({ spec })} />`}
      </div>
      <fieldset class="programs"><legend>Programs</legend>
        ${state.programs.map((text, at) => html`<div class="program" key=${at}><div class="label"><span class="soft">program ${at + 1}</span>
          <button type="button" class="quiet" aria-label=${`Remove program ${at + 1}`} onClick=${() => remove("programs", at)}>×</button></div>
          <${Editor} label=${`Program ${at + 1}`} value=${text} language=${state.language} rows=${3} onInput=${value => change("programs", at, value)} /></div>`)}
        <button type="button" onClick=${() => set({ programs: [...state.programs, ""] })}>Add a program</button>
      </fieldset>
    </div>
    <div class="row actions"><button class="main" disabled=${busy}>Run and rank</button>
      <button type="button" onClick=${share}>Copy a link to this</button>
      <span role="status" class="soft">${status}</span></div>
    ${link && html`<div class="row"><label for="link">Link (its contents are behind the #, no server is sent them)</label><input id="link" readonly value=${link} onFocus=${event => event.target.select()} /></div>`}
    ${result && html`<${Ranking} ...${result} />`}
    ${bodies && html`<details class="snippets"><summary>The same as curl, as Python</summary><${Snippets} body=${bodies.rank} /></details>`}
  </form>`;
}

function Snippets({ body }) {
  const { curl, python } = snippets(body);
  return html`<div class="two"><div><h3>curl</h3><${Code} text=${curl} language="bash" /><${Copy} text=${curl} label="Copy" /></div>
    <div><h3>Python</h3><${Code} text=${python} language="python" /><${Copy} text=${python} label="Copy" /></div></div>`;
}

const mood = verdict => (verdict === "passed" ? "good" : verdict === "skipped" ? "soft" : "bad");
const words = verdict => (verdict || "").replaceAll("_", " ");

function Ranking({ state, ranking, executed, completions, requestId }) {
  const decided = Object.entries(ranking.completions[0].components).find(([, part]) => part.decided);
  const { examples, inputs } = ranking.evidence || {};
  return html`<section class="ranking" aria-label="Ranking"><h2>Ranking <small>request ${requestId}</small></h2>
    <p>${decided ? html`<b>${decided[0]}</b> decided, by ${number(ranking.group.margin)}.` : "No term set the best apart."}
      ${examples?.length > 0 && ` Read out of the prompt: ${examples.map(one => one.test).join("; ")}.`} ${inputs > 0 && ` Programs were compared on ${plural(inputs, "further input")}.`}</p>
    <ol class="cards">${ranking.order.map((at, place) => html`<${Outcome} key=${at} place=${place} at=${at} reward=${ranking.completions[at]} program=${executed?.[at]} text=${completions[at]} state=${state} />`)}</ol></section>`;
}

function Outcome({ place, at, reward, program, text, state }) {
  const components = Object.entries(reward.components), tests = program?.tests || [];
  const hasExpected = ["stdio", "function", "json"].includes(state.kind);
  return html`<li class="card"><div class="label"><span><b>${place + 1}.</b> program ${at + 1}
      ${program?.verdict ? html` <span class=${`pill ${mood(program.verdict)}`}>${words(program.verdict)}</span> ${program.total ? `${program.passed} of ${plural(program.total, "test")}` : ""}` : program && html` <span class="pill bad">${words(program.status)}</span>`}</span>
      <span>reward <b>${reward.reward == null ? "–" : reward.reward.toFixed(3)}</b></span></div>
    <${Code} text=${text} language=${state.language} />
    ${program?.error && html`<p class="bad">${program.error.code}: ${program.error.detail}</p>`}
    ${program?.compile && !program.compile.ok && html`<pre class="output" tabindex="0">${program.compile.stderr || program.compile.stdout}</pre>`}
    ${program?.flags.length > 0 && html`<p>Flags: ${program.flags.map(flag => html`<span class="chip warn" key=${flag}>${words(flag)}</span> `)}</p>`}
    <div class="scroll" tabindex="0" role="group" aria-label=${`Terms of program ${at + 1}`}><table><caption class="sr">What each term says of program ${at + 1}</caption><thead><tr><th scope="col">term</th><th scope="col" class="num">value</th><th scope="col" class="num">contribution</th><th scope="col">evidence</th></tr></thead>
      <tbody>${components.map(([name, part]) => html`<tr key=${name}><th scope="row">${name}</th><td class="num">${part.status === "ok" ? number(part.value) : words(part.status)}</td><td class="num">${number(part.contribution)}</td>
        <td>${[part.decided && "decided", words(part.verdict), part.error?.detail].filter(Boolean).join(", ") || "–"}</td></tr>`)}</tbody></table></div>
    ${tests.length > 0 && html`<details open=${tests.length <= 6}><summary>${plural(tests.length, "test")}</summary><div class="scroll" tabindex="0" role="group" aria-label=${`Tests of program ${at + 1}`}><table><caption class="sr">Tests of program ${at + 1}</caption>
      <thead><tr><th scope="col">test</th><th scope="col">verdict</th>${hasExpected && html`<th scope="col">expected</th>`}<th scope="col">got</th><th scope="col" class="num">CPU time</th></tr></thead>
      <tbody>${tests.map((test, number_) => html`<${Test} key=${number_} test=${test} at=${number_} state=${state} hasExpected=${hasExpected} />`)}</tbody></table></div></details>`}
  </li>`;
}

function Test({ test, at, state, hasExpected }) {
  let tests = null;
  try { tests = testsOf(state); } catch { /* edited since; the row has what the answer has */ }
  const one = tests?.cases?.[at], isStdio = tests?.kind === "stdio";
  const what = test.name || tests?.asserts?.[at] || (one && (isStdio ? one.stdin : JSON.stringify(one.args).slice(1, -1))) || `test ${at + 1}`;
  const expected = one ? (isStdio ? one.stdout : JSON.stringify(one.expected)) : null;
  const got = isStdio ? test.stdout : test.detail === what ? "" : test.detail;
  return html`<tr><th scope="row" class="mono">${what}</th><td class=${mood(test.verdict)}>${words(test.verdict)}${test.vacuous ? " (says nothing: an empty program passes, too)" : ""}</td>
    ${hasExpected && html`<td class="mono">${expected ?? "–"}</td>`}<td class="mono">${got || (test.verdict === "passed" ? "as expected" : test.detail === what ? "the assertion failed" : "–")}
      ${isStdio && test.detail && html`<div class="soft">${test.detail}</div>`}${!isStdio && test.stdout && html`<div class="soft">printed: ${test.stdout}</div>`}${test.stderr && html`<pre class="output" tabindex="0" aria-label="stderr">${test.stderr}</pre>`}</td>
    <td class="num">${ms(test.cpu_ms)}</td></tr>`;
}
