// Bundles src/main.js into page.html: one file, no network. `node build.mjs --check` fails where the committed file differs.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, transform } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const tight = {
  name: 'css',
  setup: (b) =>
    b.onLoad({ filter: /\.css$/ }, async ({ path }) => ({
      contents: (
        await transform(readFileSync(path, 'utf8'), { loader: 'css', minifyWhitespace: true, charset: 'utf8' })
      ).code,
      loader: 'text',
    })),
};
const { outputFiles } = await build({
  entryPoints: [join(here, 'src/main.js')],
  bundle: true,
  format: 'esm',
  minify: true,
  write: false,
  charset: 'utf8',
  target: 'es2022',
  legalComments: 'none',
  loader: { '.woff2': 'base64' },
  plugins: [tight],
});
const script = `\n${outputFiles[0].text.trim()}\n`;
const base =
  'html,body{margin:0;background:#F7F5F0}html:has([data-theme=dark]){background:#121518}body{background:none}';
const digest = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
// styles are set by the script on its own elements; nothing is fetched but from the server that sent the page
const policy = `default-src 'none'; script-src ${digest(script)}; style-src 'unsafe-inline'; font-src data:; img-src data: blob:; worker-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'`;
const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>chainrule explorer</title>
<style>${base}</style>
</head>
<body>
<div id="app"></div>
<script type="application/json" id="data">null</script>
<script type="application/json" id="live">null</script>
<script type="module">${script}</script>
</body>
</html>
`;
const target = join(here, 'page.html');
if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== page) {
    console.error('page.html is not what its sources make: run `npm run build` in src/chainrule/explain/web');
    process.exit(1);
  }
} else writeFileSync(target, page);
console.log(`page.html ${(Buffer.byteLength(page) / 1024).toFixed(1)} KiB`);
