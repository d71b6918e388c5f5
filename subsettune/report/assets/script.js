(() => {
  const root = document.documentElement, data = document.getElementById('figures');
  const figures = data ? JSON.parse(data.textContent) : {};
  const isName = /^--c-[a-z]+$/;
  const coloured = (value, style) => {
    if (typeof value === 'string') return isName.test(value) ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((inner) => coloured(inner, style));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner, style)]));
  };
  const draw = () => {
    const style = getComputedStyle(root), isPaper = root.classList.contains('paper');
    for (const [name, figure] of Object.entries(figures)) {
      const {data, layout} = coloured(figure, style);
      if (matchMedia('(pointer: coarse)').matches) layout.dragmode = false;  // a finger scrolls the page
      // on paper the pixels of a page of A4 between its margins
      layout.width = isPaper ? 660 : document.getElementById('figure-' + name).clientWidth;
      Plotly.react('figure-' + name, data, layout, {displayModeBar: false});
    }
  };
  draw();
  // The window itself says nothing of a scroll bar that appears, and is slow to tell of a size.
  const resized = new ResizeObserver((changes) => {
    if (root.classList.contains('paper')) return;
    for (const {target} of changes) {
      if (target.clientWidth) Plotly.relayout(target, {width: target.clientWidth});
    }
  });
  for (const name of Object.keys(figures)) resized.observe(document.getElementById('figure-' + name));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

  // Paper is white, narrower than most windows, and cannot be unfolded.
  let folded = [];
  addEventListener('beforeprint', () => {
    folded = [...document.querySelectorAll('details:not([open])')];
    for (const one of folded) one.open = true;
    root.classList.add('paper');
    draw();
  });
  addEventListener('afterprint', () => {
    for (const one of folded) one.open = false;
    root.classList.remove('paper');
    draw();
  });

  // What a word means, where one points at it or reaches it by keyboard; Escape hides it, and one may point at it.
  const tip = document.getElementById('tip');
  const show = (term) => {
    tip.textContent = document.getElementById(term.getAttribute('aria-describedby')).textContent;
    tip.hidden = false;
    const at = term.getBoundingClientRect(), room = root.clientWidth - tip.offsetWidth - 8;
    tip.style.left = Math.max(8, Math.min(at.left, room)) + scrollX + 'px';
    const isBelow = at.bottom + tip.offsetHeight + 8 < innerHeight;
    tip.style.top = (isBelow ? at.bottom : at.top - tip.offsetHeight) + scrollY + 'px';
  };
  const hide = () => { tip.hidden = true; };
  const termOf = (event) => event.target.closest && event.target.closest('.term');
  for (const kind of ['mouseover', 'focusin']) {
    document.addEventListener(kind, (event) => {
      const term = termOf(event);
      if (term) show(term); else if (kind === 'focusin' || event.target !== tip) hide();
    });
  }
  document.addEventListener('focusout', hide);
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') hide(); });
})();
