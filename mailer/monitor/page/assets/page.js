// Updates the elements marked `data-live`: when the server announces a change, the page is fetched again, and
// the elements that differ are replaced. Without this script the page shows the state at the time of loading.
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
        // Keep an element with the focus, so that a control does not vanish while it is being used.
        if (!now || old.innerHTML === now.innerHTML || old.contains(document.activeElement)) continue;
        old.className = now.className;
        old.replaceChildren(...now.childNodes);
      }
    } catch {
      // The server is not reachable. The event source reconnects, and then the page is refreshed.
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

  // A hidden page closes its connection, since browsers allow only six per server.
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
  // Ages change even if the server announces nothing.
  setInterval(() => { if (source) refresh(); }, 30000);
  follow();
})();
