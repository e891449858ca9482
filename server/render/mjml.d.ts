/** What we use of MJML 5 (https://documentation.mjml.io/#inside-node-js), which ships no types. */
declare module 'mjml' {
  export default function mjml2html(
    source: string,
    options?: {
      validationLevel?: 'strict' | 'soft' | 'skip'
      ignoreIncludes?: boolean
      keepComments?: boolean
      /** Style sheets by the name of the font that a text may ask for. */
      fonts?: Record<string, string>
    },
  ): Promise<{ html: string; errors: { line: number; message: string; tagName: string }[] }>
}
