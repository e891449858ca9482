import {
  Link,
  Outlet,
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  redirect,
} from '@tanstack/react-router'
import { LogOut } from 'lucide-react'
import bell from './bell.svg'
import { signOut } from './session/session.ts'
import { ListPage } from './templates/list-page.tsx'
import { Button } from './ui/controls.tsx'

function Shell() {
  return (
    <div className="flex min-h-dvh flex-col">
      <a
        href="#main"
        className="sr-only focus:not-sr-only focus:absolute focus:z-50 focus:m-2 focus:rounded-md focus:bg-raised focus:px-3 focus:py-2"
      >
        Skip to the content
      </a>
      <header className="flex h-13 shrink-0 items-center gap-4 border-b border-line bg-surface px-4">
        <Link to="/templates" className="flex items-center gap-2.5 rounded-md font-semibold">
          <img src={bell} alt="" className="size-6" />
          Carillon
        </Link>
        <nav aria-label="Console" className="flex grow gap-1">
          <Link
            to="/templates"
            className="rounded-md px-2.5 py-1 text-sm text-muted hover:bg-sunken hover:text-ink aria-[current=page]:text-ink"
          >
            Templates
          </Link>
        </nav>
        <Button look="quiet" icon={LogOut} onClick={signOut}>
          Sign out
        </Button>
      </header>
      <Outlet />
    </div>
  )
}

export interface ListSearch {
  search?: string
  category?: string
  tag?: string
  enabled?: boolean
}

const text = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined)

const root = createRootRoute({
  component: Shell,
  notFoundComponent: () => (
    <main id="main" className="p-8">
      <h1 className="text-xl font-semibold">There is no such page</h1>
      <Link to="/templates" className="text-accent-ink underline">
        To the templates
      </Link>
    </main>
  ),
})
const home = createRoute({
  getParentRoute: () => root,
  path: '/',
  beforeLoad: () => {
    // oxlint-disable-next-line typescript/only-throw-error -- how the router is told
    throw redirect({ to: '/templates' })
  },
})
const list = createRoute({
  getParentRoute: () => root,
  path: '/templates',
  component: ListPage,
  validateSearch: (given: Record<string, unknown>): ListSearch => ({
    search: text(given.search),
    category: text(given.category),
    tag: text(given.tag),
    enabled: typeof given.enabled === 'boolean' ? given.enabled : undefined,
  }),
})
const editor = createRoute({
  getParentRoute: () => root,
  path: '/templates/$id',
  // By far the largest part, and nothing of it is needed for the list.
  component: lazyRouteComponent(() => import('./templates/editor-page.tsx'), 'EditorPage'),
})

export const router = createRouter({
  routeTree: root.addChildren([home, list, editor]),
  basepath: '/console',
  defaultPreload: false,
})

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router
  }
}
