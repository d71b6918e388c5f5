(() => {
  const figures = JSON.parse(document.getElementById('figures').textContent);
  const isName = /^--c-[a-z]+$/;
  const coloured = (value, style) => {
    if (typeof value === 'string') return isName.test(value) ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((inner) => coloured(inner, style));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner, style)]));
  };
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    for (const [name, figure] of Object.entries(figures)) {
      const {data, layout} = coloured(figure, style);
      if (matchMedia('(pointer: coarse)').matches) layout.dragmode = false;  // a finger scrolls the page
      Plotly.react('figure-' + name, data, layout, {responsive: true, displayModeBar: false});
    }
  };
  draw();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
})();
