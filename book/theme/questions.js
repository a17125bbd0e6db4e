// <wb-quiz> and <wb-predict>: the reader commits to an answer before seeing it. Without this script they are lists.
(function () {
	const make = (tag, properties, ...children) => {
		const node = Object.assign(document.createElement(tag), properties);
		node.append(...children);
		return node;
	};
	const button = (textContent, onclick) => make('button', { type: 'button', textContent, onclick });
	// The page for printing keeps the static text, because buttons do not work on paper.
	const print = /\/print\.html$/.test(location.pathname);
	// Wide code can get the focus, so that the arrow keys scroll it.
	const makeWideCodeFocusable = () => {
		for (const code of document.querySelectorAll('main pre code')) {
			if (code.scrollWidth <= code.clientWidth) continue;
			code.tabIndex = 0;
			code.onkeydown = (event) => event.stopPropagation();
		}
	};
	addEventListener('load', makeWideCodeFocusable);
	addEventListener('resize', makeWideCodeFocusable);
	// Reads a stored value, or stores one.
	const store = (key, value) => {
		try {
			if (value === undefined) return JSON.parse(localStorage.getItem(key));
			localStorage.setItem(key, JSON.stringify(value));
		} catch { /* The reader has disabled storage. */ }
		return null;
	};

	globalThis.workbook = { make, button, print, store, makeWideCodeFocusable };
	if (print) return;

	class Question extends HTMLElement {
		connectedCallback() {
			this.key = `workbook:${this.localName}:${this.dataset.id}`;
			// The arrow keys choose an option. mdBook would turn the page.
			this.addEventListener('keydown', (event) => event.stopPropagation());
			this.feedback = make('div', { className: 'wb-feedback', ariaLive: 'polite' });
			this.again = button('Start again', () => this.reset());
			this.again.hidden = true;
			const legend = make('legend', {}, ...this.querySelector('.wb-ask').childNodes);
			this.form = make('form', {},
				make('fieldset', {}, legend, ...this.inputs()),
				make('p', { className: 'wb-buttons' },
					make('button', { textContent: this.verb }), this.again));
			this.form.onsubmit = (event) => {
				event.preventDefault();
				this.submit();
			};
			this.replaceChildren(this.form, this.feedback);
			const kept = store(this.key);
			if (kept) this.restore(kept);
		}

		setFeedback(className, ...words) {
			this.feedback.className = `wb-feedback ${className}`;
			this.feedback.replaceChildren(make('p', {}, ...words));
			this.again.hidden = !className;
		}

		reset() {
			store(this.key, null);
			this.form.reset();
			this.setFeedback('', '');
			this.form.querySelector('input').focus();
		}

		radios(name, labels) {
			return labels.map((label, value) => make('label', {},
				make('input', { type: 'radio', name, value }), ' ', make('span', {}, ...label)));
		}

		accept(answer) {
			this.show(answer);
			store(this.key, answer);
		}
	}

	customElements.define('wb-quiz', class extends Question {
		verb = 'Answer';

		inputs() {
			const [options, reasons] = [...this.querySelectorAll('ol')].map((list) => [...list.children]);
			this.reasons = reasons;
			return [
				...this.radios('option', options.map((option) => [...option.childNodes])),
				make('fieldset', { className: 'wb-sure' },
					make('legend', { textContent: 'How sure are you?' }),
					...this.radios('sure', [['a guess'], ['fairly sure'], ['certain']])),
			];
		}

		submit() {
			const { option, sure } = Object.fromEntries(new FormData(this.form));
			if (!option) return this.setFeedback('', 'Choose an answer first.');
			if (!sure) return this.setFeedback('', 'Say how sure you are first. A surprise helps you remember.');
			this.accept({ option, sure });
		}

		show({ option, sure }) {
			const reason = this.reasons[option].cloneNode(true);
			const right = reason.classList.contains('wb-right');
			const words = [...reason.childNodes];
			if (!right && sure === '2') words.push(' You were certain, so come back to this question.');
			if (right && sure === '0') words.push(' It was a guess. Can you explain it without looking?');
			this.setFeedback(right ? 'wb-yes' : 'wb-no', ...words);
		}

		restore(kept) {
			// The question may have changed since the answer was stored.
			if (!this.reasons[kept.option]) return;
			for (const name in kept) this.form.elements[name].value = kept[name];
			this.show(kept);
		}
	});

	customElements.define('wb-predict', class extends Question {
		verb = 'Commit';

		inputs() {
			const [answer, why] = this.querySelectorAll('details p');
			[this.answer, this.why] = [answer.textContent, why];
			this.input = make('input', { type: 'text', autocomplete: 'off', size: 12 });
			if (/^[\d.,]+$/.test(this.answer)) this.input.inputMode = 'decimal';
			return [make('label', { className: 'wb-line' }, 'Your prediction ', this.input)];
		}

		submit() {
			const given = this.input.value.trim();
			if (!given) return this.setFeedback('', 'Write down an answer first, even a wild one.');
			this.accept(given);
		}

		show(given) {
			const plain = (text) => text.toLowerCase().replace(/[\s,]/g, '');
			const right = plain(given) === plain(this.answer);
			const verdict = make('b', { textContent: right ? `Yes: ${this.answer}.` : `It is ${this.answer}.` });
			this.setFeedback(right ? 'wb-yes' : 'wb-no', verdict,
				right ? ' ' : ` You said ${given}. `, ...this.why.cloneNode(true).childNodes);
		}

		restore(given) {
			this.input.value = given;
			this.show(given);
		}
	});
})();
