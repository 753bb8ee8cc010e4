"use strict";
(() => {
  const tree = document.getElementById("tree");
  const inner = () => [...tree.querySelectorAll("details.inner")];
  const shown = (summary) =>
    summary.offsetParent !== null && !summary.parentElement.parentElement.closest("details:not([open])");
  const visible = () => [...tree.querySelectorAll("summary")].filter(shown);

  const reveal = (details) => {
    for (let above = details; above && above !== tree; above = above.parentElement) {
      if (above.tagName === "DETAILS") above.open = true;
    }
  };
  const focus = (summary) => {
    if (!summary) return;
    summary.focus({ preventScroll: true });
    summary.scrollIntoView({ block: "nearest" });
  };

  const actions = {
    open: () => inner().forEach((details) => { details.open = true; }),
    close: () => tree.querySelectorAll("details").forEach((details) => { details.open = false; }),
    winning: () => {
      actions.close();
      tree.querySelectorAll("li.wins > details.inner").forEach((details) => { details.open = true; });
    },
    lost: (button) => {
      button.setAttribute("aria-pressed", String(tree.classList.toggle("without-lost")));
    },
  };
  document.querySelectorAll("button[data-do]").forEach((button) => {
    button.addEventListener("click", () => actions[button.dataset.do](button));
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
      if (above && tree.contains(above)) focus(above.querySelector("summary"));
    },
  };
  tree.addEventListener("keydown", (event) => {
    const summary = event.target.closest("summary");
    if (!summary || !moves[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    moves[event.key](summary, visible());
  });

  const dots = (node) => document.querySelectorAll(`a[data-node="${node}"]`);
  const light = (event, lit) => {
    const summary = event.target.closest("summary");
    const node = summary && summary.parentElement.id;
    if (node) dots(node).forEach((dot) => dot.classList.toggle("lit", lit));
  };
  tree.addEventListener("mouseover", (event) => light(event, true));
  tree.addEventListener("mouseout", (event) => light(event, false));
  tree.addEventListener("focusin", (event) => light(event, true));
  tree.addEventListener("focusout", (event) => light(event, false));

  const follow = () => {
    const details = /^#n\d+$/.test(location.hash) ? document.querySelector(location.hash) : null;
    if (!details) return;
    reveal(details);
    const summary = details.querySelector("summary");
    summary.focus({ preventScroll: true });
    summary.scrollIntoView({ block: "center" });
  };
  window.addEventListener("hashchange", follow);
  follow();
})();
