// The frame of the page: navigation, readiness, API key, colors; and which view is shown.
import { html, render, useEffect, useState } from "./vendor/preact-htm.js";
import { key, plural, setKey, usePoll, useStored } from "./service.js";
import { Playground } from "./playground.js";
import { Activity, Deployment, Requests, Slow } from "./operators.js";

const VIEWS = { playground: "Playground", activity: "Activity", requests: "Requests", slow: "Slow work", deployment: "Deployment" };
const viewOf = hash => {
  const name = hash.slice(1).split("=")[0];  // #requests=ID
  return VIEWS[name] ? name : "playground";
};

function App() {
  const [view, setView] = useState(viewOf(location.hash));
  const [theme, setTheme] = useStored("plaudit-theme", "");
  useEffect(() => {
    const follow = () => setView(viewOf(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const systemDark = matchMedia("(prefers-color-scheme: dark)").matches, isDark = theme ? theme === "dark" : systemDark;
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  useEffect(() => { document.title = view === "playground" ? "plaudit" : `${VIEWS[view]} · plaudit`; }, [view]);
  const ready = usePoll("ready", 3000), info = usePoll("info", view === "deployment" || view === "activity" ? 3000 : 15000);
  const languages = info.body?.languages || [];
  return html`<a class="skip" href="#main" onClick=${event => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the content</a>
    <header><a class="brand" href="#playground"><b aria-hidden="true">▮</b> plaudit</a><${Ready} state=${ready} info=${info.body} /><span class="push"></span>
      <${KeyForm} problem=${info.problem} />
      <button type="button" aria-label=${isDark ? "Light colors" : "Dark colors"} onClick=${() => setTheme(isDark ? "light" : "dark")}>${isDark ? "☀" : "☾"}</button></header>
    <nav aria-label="Views"><ul>${Object.entries(VIEWS).map(([name, title]) => html`<li key=${name}><a href=${`#${name}`} aria-current=${view === name ? "page" : null}>${title}</a></li>`)}
      <li class="push"><a href="docs">API reference</a></li><li><a href="metrics">Metrics</a></li></ul></nav>
    <main id="main" tabindex="-1"><h1 class="sr">${VIEWS[view]}</h1>
      ${info.problem && view !== "playground" && html`<p class="bad" role="alert">${info.problem}</p>`}
      ${view === "playground" && html`<${Playground} languages=${languages} />`}
      ${view === "activity" && html`<${Activity} info=${info.body} theme=${isDark} />`}
      ${view === "requests" && html`<${Requests} />`}
      ${view === "slow" && html`<${Slow} />`}
      ${view === "deployment" && html`<${Deployment} info=${info.body} theme=${isDark} />`}</main>`;
}

function Ready({ state, info }) {
  const body = state.body, isReady = body?.ready;
  const word = !body ? (state.problem ? "✗ no answer" : "asking …") : isReady ? "✓ ready" : "✗ not ready";
  const facts = info && [`v${info.version}`, plural(info.workers.score ?? 0, "scorer"), plural(info.workers.execute ?? 0, "executor"), info.isolation && `isolation ${info.isolation}`].filter(Boolean).join(" · ");
  return html`<span class=${`pill ${isReady ? "good" : body || state.problem ? "bad" : "soft"}`} role="status">${word}</span>
    ${body && !isReady ? html`<span class="bad">${(body.reasons || []).join("; ")}</span>` : html`<span class="soft facts">${facts}</span>`}`;
}

function KeyForm({ problem }) {
  const [text, setText] = useState(key());
  const use = event => { event.preventDefault(); setKey(text); dispatchEvent(new Event("plaudit-key")); };
  return html`<form class="row key-form" onSubmit=${use}><label for="key">API key</label>
    <input id="key" type="password" size="12" placeholder="key" autocomplete="off" spellcheck=${false} aria-invalid=${problem?.includes("key") ? "true" : null} value=${text} onInput=${event => setText(event.target.value)} /><button>Use</button></form>`;
}

render(html`<${App} />`, document.getElementById("app"));
