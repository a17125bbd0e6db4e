// <wb-languages>: a switch shows the listing in Rust or in C, on every page. Without this script both are shown.
(function () {
	const { make, button, print, store, makeWideCodeFocusable } = workbook;
	if (print) return;
	const key = 'workbook:language';
	const names = { rust: 'Rust', c: 'C' };
	const all = [...document.querySelectorAll('wb-languages')];

	function show(language) {
		document.documentElement.dataset.language = language;
		for (const pair of all) {
			for (const name in names) pair.buttons[name].ariaPressed = String(name === language);
		}
		makeWideCodeFocusable();
	}

	function choose(language, pressed) {
		const before = pressed.getBoundingClientRect().top;
		show(language);
		// The listings above have changed their height. The pressed button stays where it is.
		scrollBy({ top: pressed.getBoundingClientRect().top - before, behavior: 'instant' });
		store(key, language);
	}

	for (const pair of all) {
		pair.buttons = {};
		for (const name in names) pair.buttons[name] = button(names[name], ({ target }) => choose(name, target));
		const group = make('div', { className: 'wb-switch', role: 'group', ariaLabel: 'Language of the listings' },
			...Object.values(pair.buttons));
		// mdBook would turn the page.
		group.onkeydown = (event) => event.stopPropagation();
		pair.prepend(group);
	}
	if (all.length) show(document.documentElement.dataset.language ?? 'rust');
	// Another tab has changed the language.
	addEventListener('storage', (event) => { if (event.key === key) show(store(key) === 'c' ? 'c' : 'rust'); });
})();
