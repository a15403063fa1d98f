// Files from disk to the session, keys to buttons, and the notice of a closed session. Everything else is the server's.
(function () {
  const ACCEPT = ".nii,.gz,.nrrd,.nhdr,.mha,.mhd,.raw,.zraw,.dcm,.ima,.zip";
  const set = (name, value) => window.trame && window.trame.state.set(name, value);

  function upload(role, files) {
    if (!files.length) return;
    const form = new FormData();
    for (const file of files) form.append("file", file, file.name);
    const request = new XMLHttpRequest();
    request.open("POST", `upload/${role}`);
    request.upload.onprogress = (e) => e.lengthComputable && set("uploading", Math.round((100 * e.loaded) / e.total));
    request.onloadend = () => {
      set("uploading", -1);
      if (request.status === 0) {
        set("message", "The files could not be sent: the server refused them or cannot be reached. Are they too large?");
        set("message_kind", "error");
        set("message_open", true);
      }
    };
    set("uploading", 0);
    request.send(form);
  }

  function choose(role) {
    const input = document.createElement("input");
    Object.assign(input, { type: "file", multiple: true });
    if (role === "drawing") Object.assign(input, { multiple: false, accept: ".nrrd,.nii,.gz,.mha,.dcm" });
    input.onchange = () => upload(role, input.files);
    input.click();
  }

  // ---- dropping files: the two halves of the page are the two roles
  let depth = 0;
  const dragging = (on) => document.body.classList.toggle("fs-dragging", on);
  const holdsFiles = (e) => e.dataTransfer && [...e.dataTransfer.types].includes("Files");
  window.addEventListener("dragenter", (e) => { if (holdsFiles(e)) { depth += 1; dragging(true); } });
  window.addEventListener("dragleave", (e) => { if (holdsFiles(e) && --depth <= 0) { depth = 0; dragging(false); } });
  window.addEventListener("dragover", (e) => { if (holdsFiles(e)) e.preventDefault(); });
  window.addEventListener("drop", (e) => {
    if (!holdsFiles(e)) return;
    e.preventDefault();
    depth = 0;
    dragging(false);
    const zone = e.target.closest && e.target.closest("[data-drop]");
    upload(zone ? zone.dataset.drop : "support", e.dataTransfer.files);
  });

  // ---- keys press the button that carries them, if it is there and enabled
  const NAMES = { Escape: "v" };
  const TYPED = "input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable]";
  window.addEventListener("keydown", (e) => {
    if (e.target.closest && e.target.closest(TYPED) && !(e.ctrlKey && e.key === "Enter")) return;
    if (e.key === "ArrowUp" || e.key === "ArrowDown") {
      if (e.target.closest && e.target.closest("[role=slider], [role=listbox]")) return;
      e.preventDefault();
      window.trame && window.trame.trigger("step", [e.key === "ArrowUp" ? 1 : -1]);
      return;
    }
    let key = NAMES[e.key] || (e.key.length === 1 ? e.key.toLowerCase() : e.key);
    if (e.ctrlKey || e.metaKey) key = key === "Enter" ? "Ctrl+Enter" : key === "z" ? (e.shiftKey ? "y" : "z") : key === "y" ? "y" : "";
    if (!key || e.altKey) return;
    const button = [...document.querySelectorAll("[data-key]")].find((b) => b.dataset.key === key && !b.disabled);
    if (button) { e.preventDefault(); button.click(); }
  });

  // ---- a closed session says so; not by the page's own widgets, which go with the connection
  const GONE = "<div><h3>This session is closed</h3><p>It was idle for a long time, or the server stopped.</p><a href='/'>Open a new one</a></div>";
  function closed(yes) {
    const notice = document.getElementById("gone");
    if (notice && !yes) notice.remove();
    if (notice || !yes) return;
    document.body.append(Object.assign(document.createElement("div"), { id: "gone", className: "fs-gone", innerHTML: GONE }));
  }
  setInterval(async () => {
    let open = false;
    try { open = (await fetch("alive", { cache: "no-store" })).ok; } catch (_) { open = false; }
    closed(!open);
  }, 15000);

  // ---- dark or light as the user chose last, or as the system is
  function theme() {
    if (!window.trame || !window.trame.state) return setTimeout(theme, 50);
    const light = window.matchMedia("(prefers-color-scheme: light)").matches;
    set("theme", localStorage.getItem("theme") || (light ? "light" : "dark"));
  }
  theme();

  function turn(now) {
    const next = now === "dark" ? "light" : "dark";
    localStorage.setItem("theme", next);
    return next;
  }

  window.fewshot = { upload, choose, turn };
})();
