"use strict";
// The map and the outline of a search tree; both may be replaced while the page is open.
const searchTree = (() => {
  const tree = () => document.getElementById("tree");
  const within = (event) => event.target.closest && event.target.closest("#tree summary");
  const inner = () => [...tree().querySelectorAll("details.inner")];
  const shown = (summary) =>
    summary.offsetParent !== null && !summary.parentElement.parentElement.closest("details:not([open])");
  const visible = () => [...tree().querySelectorAll("summary")].filter(shown);

  const reveal = (details) => {
    for (let above = details; above && above.id !== "tree"; above = above.parentElement) {
      if (above.tagName === "DETAILS") above.open = true;
    }
  };
  const focus = (summary, block = "nearest") => {
    if (!summary) return;
    summary.focus({ preventScroll: true });
    summary.scrollIntoView({ block });
  };

  const actions = {
    open: () => inner().forEach((details) => { details.open = true; }),
    close: () => tree().querySelectorAll("details").forEach((details) => { details.open = false; }),
    winning: () => {
      actions.close();
      tree().querySelectorAll("li.wins > details.inner").forEach((details) => { details.open = true; });
    },
    lost: (button) => {
      button.setAttribute("aria-pressed", String(tree().classList.toggle("without-lost")));
    },
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (button) actions[button.dataset.do](button);
  });

  const moves = {
    ArrowDown: (summary, all) => focus(all[all.indexOf(summary) + 1]),
    ArrowUp: (summary, all) => focus(all[all.indexOf(summary) - 1]),
    Home: (summary, all) => focus(all[0]),
    End: (summary, all) => focus(all[all.length - 1]),
    ArrowRight: (summary, all) => {
      const details = summary.parentElement;
      if (details.open && details.classList.contains("inner")) focus(all[all.indexOf(summary) + 1]);
      details.open = true;
    },
    ArrowLeft: (summary) => {
      const details = summary.parentElement;
      if (details.open) { details.open = false; return; }
      const above = details.parentElement.closest("details");
      if (above && tree().contains(above)) focus(above.querySelector("summary"));
    },
  };
  document.addEventListener("keydown", (event) => {
    const summary = within(event);
    if (!summary || !moves[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    moves[event.key](summary, visible());
  });

  const light = (event, lit) => {
    const summary = within(event);
    const node = summary && summary.parentElement.id;
    if (node) document.querySelectorAll(`a[data-node="${node}"]`).forEach((dot) => dot.classList.toggle("lit", lit));
  };
  document.addEventListener("mouseover", (event) => light(event, true));
  document.addEventListener("mouseout", (event) => light(event, false));
  document.addEventListener("focusin", (event) => light(event, true));
  document.addEventListener("focusout", (event) => light(event, false));

  const follow = (node) => {
    const details = /^n[\d-]+$/.test(node) ? document.getElementById(node) : null;
    if (!details) return;
    reveal(details);
    focus(details.querySelector("summary"), "center");
  };
  window.addEventListener("hashchange", () => follow(location.hash.slice(1)));
  follow(location.hash.slice(1));

  // What a reader has opened and chosen, to be taken over by the same tree drawn anew.
  const state = () => {
    if (!tree()) return null;
    const all = [...tree().querySelectorAll("details")];
    const at = document.activeElement && document.activeElement.closest("#tree details");
    return {
      open: new Map(all.map((details) => [details.dataset.key, details.open])),
      focused: at ? at.dataset.key : null,
      without: tree().classList.contains("without-lost"),
      left: document.querySelector(".map .scroll") ? document.querySelector(".map .scroll").scrollLeft : 0,
    };
  };
  const restore = (before) => {
    if (!before || !tree()) return;
    for (const details of tree().querySelectorAll("details")) {
      if (before.open.has(details.dataset.key)) details.open = before.open.get(details.dataset.key);
      if (before.focused !== null && details.dataset.key === before.focused) {
        reveal(details.parentElement);
        details.querySelector("summary").focus({ preventScroll: true });
      }
    }
    if (before.without) actions.lost(document.querySelector("button[data-do=lost]"));
    const scroll = document.querySelector(".map .scroll");
    if (scroll) scroll.scrollLeft = before.left;
  };
  return { state, restore };
})();
