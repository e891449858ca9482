import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { RouterProvider } from '@tanstack/react-router'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { ApiError } from './api/client.ts'
import { router } from './router.tsx'
import { useSession } from './session/session.ts'
import { SignIn } from './session/sign-in.tsx'
import './styles.css'
import { Toasts } from './ui/toasts.tsx'

const MAX_TRIES = 2

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      refetchOnWindowFocus: false,
      // What was refused is refused again; what did not get through may.
      retry: (count, error) =>
        count < MAX_TRIES && (!(error instanceof ApiError) || error.status === 0 || error.status >= 500),
    },
  },
})

function Console() {
  const { key, expired } = useSession()
  if (key === undefined && !expired) {
    queries.clear()
    return <SignIn />
  }
  return (
    <>
      {/* Somebody may be in the middle of something when their key ends. */}
      <div inert={expired} hidden={expired}>
        <RouterProvider router={router} />
      </div>
      {expired && <SignIn again />}
    </>
  )
}

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <Toasts>
        <Console />
      </Toasts>
    </QueryClientProvider>
  </StrictMode>,
)
