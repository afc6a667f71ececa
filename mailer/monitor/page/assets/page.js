// Keeps what is marked `data-live` fresh: when the server says that there is news, the page is fetched again,
// and what has changed in it takes its place. Without this script the page is the same, as of its loading.
"use strict";

(() => {
  const pulse = document.getElementById("pulse");
  const live = () => document.querySelectorAll("[data-live]");
  if (!live().length || !window.EventSource) return;

  let source = null;
  let fetching = false;
  let again = false;

  async function refresh() {
    if (fetching) { again = true; return; }
    fetching = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of live()) {
        const now = fresh.getElementById(old.id);
        // What somebody is about to press must not be taken from under the finger.
        if (!now || old.innerHTML === now.innerHTML || old.contains(document.activeElement)) continue;
        old.className = now.className;
        old.replaceChildren(...now.childNodes);
      }
    } catch {
      // The server is away: the event source tries again, and then there is news.
    }
    fetching = false;
    if (again) { again = false; refresh(); }
  }

  function listen() {
    source = new EventSource("/events");
    source.onopen = () => { pulse.hidden = false; refresh(); };
    source.onerror = () => { pulse.hidden = true; };
    source.onmessage = refresh;
  }

  // A page that nobody sees holds no connection: a browser has six for one server.
  function follow() {
    if (document.hidden) {
      if (source) source.close();
      source = null;
      pulse.hidden = true;
    } else if (!source) {
      listen();
    }
  }

  document.addEventListener("visibilitychange", follow);
  // Ages grow without any news.
  setInterval(() => { if (source) refresh(); }, 30000);
  follow();
})();
