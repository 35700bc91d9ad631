// The user's assemblies.

using System;
using System.IO;
using System.Reflection;
using System.Runtime.Loader;

namespace Dunlin
{
    /// <summary>
    /// Finds assemblies and native libraries as the host of a program would: by the <c>.deps.json</c> beside the handler's
    /// assembly, else in the folder. Of what .NET brings as well, the newer one is taken.
    /// </summary>
    sealed class Code : AssemblyLoadContext
    {
        readonly string[] folders;
        readonly AssemblyDependencyResolver resolver;

        public Code(string folder, string main) : base("code")
        {
            folders = new[] { folder, Path.Combine(folder, "lib"), "/opt/dotnet", "/opt/lib", "/opt" };
            try
            {
                resolver = new AssemblyDependencyResolver(main);
            }
            catch (InvalidOperationException)
            {
                // It lists files that were not packed: what is there is found all the same.
                resolver = null;
            }
            // What belongs to .NET itself, such as the classes it makes at run time, has to find them too.
            Default.Resolving += FindForOthers;
        }

        /// <summary>Leaves what has been loaded as it is, and loads nothing more for others.</summary>
        public void Close()
        {
            Default.Resolving -= FindForOthers;
        }

        Assembly FindForOthers(AssemblyLoadContext others, AssemblyName name)
        {
            return Find(name);
        }

        protected override Assembly Load(AssemblyName name)
        {
            Assembly known = null;
            try
            {
                known = Default.LoadFromAssemblyName(new AssemblyName(name.Name));
            }
            catch (IOException)
            {
                // Not one of .NET's.
            }
            if (known == null)
            {
                return Find(name);
            }
            if (GetLoadContext(known) != Default || name.Version == null || known.GetName().Version >= name.Version)
            {
                return known;
            }
            return Find(name) ?? known;
        }

        Assembly Find(AssemblyName name)
        {
            string path = resolver == null ? null : resolver.ResolveAssemblyToPath(name);
            for (int i = 0; path == null && i < folders.Length; i++)
            {
                string candidate = Path.Combine(folders[i], name.CultureName ?? "", name.Name + ".dll");
                path = File.Exists(candidate) ? candidate : null;
            }
            return path == null ? null : LoadFromAssemblyPath(path);
        }

        protected override IntPtr LoadUnmanagedDll(string name)
        {
            string path = resolver == null ? null : resolver.ResolveUnmanagedDllToPath(name);
            string[] spellings = { name, name + ".so", "lib" + name, "lib" + name + ".so" };
            for (int i = 0; path == null && i < folders.Length * spellings.Length; i++)
            {
                string candidate = Path.Combine(folders[i / spellings.Length], spellings[i % spellings.Length]);
                path = File.Exists(candidate) ? candidate : null;
            }
            return path == null ? IntPtr.Zero : LoadUnmanagedDllFromPath(path);
        }
    }
}
