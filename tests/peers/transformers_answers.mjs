// Answers of Transformers.js, as optimum_answers.py: node transformers_answers.mjs MODULES < REQUESTS > ANSWERS
// MODULES is the folder node_modules that has @huggingface/transformers.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve, sep } from 'node:path';
import { pathToFileURL } from 'node:url';

const modules = resolve(process.argv[2]);
const entry = createRequire(join(modules, 'here.js')).resolve('@huggingface/transformers');
const js = await import(pathToFileURL(entry.replace(/\.cjs$/, '.mjs')));
js.env.allowRemoteModels = false;
js.env.localModelPath = sep;

const MODELS = {
  classification: js.AutoModelForSequenceClassification,
  regression: js.AutoModelForSequenceClassification,
  tagging: js.AutoModelForTokenClassification,
  span: js.AutoModelForQuestionAnswering,
  retrieval: js.AutoModel,
};
const PIPELINES = {
  classification: 'text-classification',
  tagging: 'token-classification',
  span: 'question-answering',
  retrieval: 'feature-extraction',
};

function textOf(kind, row) {
  return kind === 'tagging' ? row.tokens.join(' ') : row.text;
}

async function logitsOf(kind, model, tokenizer, rows) {
  const pairs = rows[0].pair == null ? null : rows.map((row) => row.pair);
  const given = tokenizer(rows.map((row) => textOf(kind, row)), { text_pair: pairs, padding: true, truncation: true });
  const found = await model(given);
  const real = given.attention_mask.tolist().map((row) => row.map(Number));
  const kept = (rows) => rows.map((row, i) => row.filter((_, j) => real[i][j]));
  if (kind === 'tagging') return kept(found.logits.tolist());
  if (kind === 'retrieval') return found.sentence_embedding.tolist();
  if (kind !== 'span') return found.logits.tolist();
  const [start, end] = [found.start_logits.tolist(), found.end_logits.tolist()];
  return kept(start.map((row, i) => row.map((score, j) => [score, end[i][j]])));
}

async function answersOf(kind, pipe, rows) {
  if (kind === 'classification') {
    if (rows[0].pair != null) return []; // the pipeline takes single texts only
    return (await pipe(rows.map((row) => row.text))).map((one) => one.label);
  }
  if (kind === 'tagging') {
    const found = [];
    for (const row of rows) {
      const pieces = await pipe(textOf(kind, row), { ignore_labels: [] });
      found.push(Object.fromEntries(pieces.map((piece) => [piece.index, piece.entity])));
    }
    return found;
  }
  if (kind === 'span') {
    const found = [];
    for (const row of rows) found.push((await pipe(row.text, row.pair)).answer);
    return found;
  }
  return (await pipe(rows.map((row) => row.text), { pooling: 'mean', normalize: true })).tolist();
}

const answers = [];
for (const { folder, kind, side, rows } of JSON.parse(readFileSync(0, 'utf8'))) {
  const settings = { dtype: 'fp32', local_files_only: true };
  const model = await MODELS[kind].from_pretrained(folder, settings);
  const tokenizer = await js.AutoTokenizer.from_pretrained(folder, settings);
  tokenizer.padding_side = side;
  const logits = await logitsOf(kind, model, tokenizer, rows);
  let said = [];
  if (kind in PIPELINES) said = await answersOf(kind, await js.pipeline(PIPELINES[kind], folder, settings), rows);
  answers.push({ logits, answers: said });
}
process.stdout.write(JSON.stringify(answers, (_, value) => (typeof value === 'bigint' ? Number(value) : value)));
