// The user's chat window. Words only ever enter the page through textContent.
"use strict";
(() => {
  const $ = id => document.getElementById(id), { at, conversation } = document.body.dataset;
  const kept = "roadworthy/" + conversation, lines = $("lines"), box = $("text");
  const address = (path, more = {}) => at + path + "?" + new URLSearchParams({ c: conversation, ...more });
  let run = localStorage.getItem(kept) || "", after = "", source = null, retry = 0, pending = null;

  const near = () => lines.scrollHeight - lines.scrollTop - lines.clientHeight < 80;
  function add(who, text, id) {
    const down = near(), line = document.createElement("li");
    line.className = who;
    line.textContent = text;
    if (id) line.id = "said-" + id;
    lines.append(line);
    if (down || who === "user") lines.scrollTop = lines.scrollHeight;
    return line;
  }
  function typing(text) { // "": writing, nothing to show yet; null: nothing is written
    const down = near(), draft = document.querySelector("li.draft");
    $("typing").hidden = text !== "";
    if (!text) draft?.remove();
    else (draft || add("assistant draft", "")).textContent = text;
    if (down) lines.scrollTop = lines.scrollHeight;
  }
  function said({ who, text }, id) {
    if (id && document.getElementById("said-" + id)) return;
    $("typing").hidden = true;
    if (who === "user" && pending && pending.textContent === text) { pending.id = "said-" + id; pending.classList.remove("sending"); pending = null; return; }
    if (who !== "user") document.querySelector("li.draft")?.remove();
    add(who, text, id);
  }
  function offered(text) {
    const button = Object.assign(document.createElement("button"), { textContent: text, type: "button" });
    button.onclick = () => { box.value = text; $("say").requestSubmit(); asks({ asked: [], choices: [] }); };
    return button;
  }
  function asks({ asked, choices }) {
    const shelf = $("choices"), answers = Object.assign(document.createElement("div"), { className: "acts" });
    shelf.hidden = !asked.length && !choices.length;
    answers.append(...choices.map(offered));
    shelf.replaceChildren(answers, ...asked.map(one => {
      const card = document.createElement("div"), title = document.createElement("b"), facts = document.createElement("dl"), acts = document.createElement("div");
      card.className = "card"; facts.className = "kv"; acts.className = "acts";
      title.textContent = one.title;
      for (const [name, value] of one.facts) for (const [tag, text] of [["dt", name], ["dd", value]]) facts.append(Object.assign(document.createElement(tag), { textContent: text }));
      for (const [label, decision] of [["Yes", "approve"], ["No", "reject"]]) {
        const button = Object.assign(document.createElement("button"), { textContent: label, className: decision === "approve" ? "main" : "" });
        button.onclick = async () => { if (await send("/decide", { approval: one.id, decision }, { run })) { asks({ asked: [], choices: [] }); listen(); } };
        acts.append(button);
      }
      card.append(title, facts, acts);
      return card;
    }));
  }
  async function send(path, fields, more) {
    const trouble = text => { $("trouble").textContent = text; $("trouble").hidden = !text; };
    try {
      const r = await fetch(address(path, more), { method: "POST", body: new URLSearchParams(fields) });
      trouble(r.ok ? "" : (await r.json()).message);
      return r.ok ? r : null;
    } catch { trouble("No connection. Please try again."); return null; }
  }
  function listen() {
    if (source) source.close();
    source = new EventSource(address("/live", { ...(run && { run }), ...(after && { after }) }));
    source.onopen = () => { retry = 0; };
    source.addEventListener("said", e => { after = e.lastEventId || after; said(JSON.parse(e.data), e.lastEventId); });
    source.addEventListener("typing", e => typing(JSON.parse(e.data).text));
    source.addEventListener("asks", e => asks(JSON.parse(e.data)));
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(listen, Math.min(10000, 500 * 2 ** retry++)); };
  }
  let key = "", keyed = "";
  $("say").addEventListener("submit", async e => {
    e.preventDefault();
    const text = box.value.trim();
    if (!text || pending) return;
    if (keyed !== text) key = "";  // words that were changed are another message
    keyed = text;
    key ||= Date.now().toString(36) + Math.random().toString(36).slice(2);
    pending = add("user sending", text);
    box.value = "";
    const line = pending, r = await send("/say", { text, key });
    if (!r) { line.remove(); pending = null; box.value = text; return; }
    key = "";
    const started = (await r.json()).run;
    if (started !== run) { run = started; localStorage.setItem(kept, run); listen(); }
    if (pending === line) setTimeout(() => { if (pending === line) pending = null; }, 3000);
  });
  box.addEventListener("keydown", e => { if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); $("say").requestSubmit(); } });
  listen();
})();
