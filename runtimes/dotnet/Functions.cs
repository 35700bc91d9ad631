// Finds what `Assembly::Namespace.Class::Method` names.

using System;
using System.Collections.Generic;
using System.IO;
using System.Reflection;

namespace Dunlin
{
    /// <summary>A class has one object, which its handler and its hooks share.</summary>
    sealed class Functions
    {
        const BindingFlags Everywhere = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance
            | BindingFlags.Static | BindingFlags.FlattenHierarchy;

        readonly string codePath;
        readonly Dictionary<Type, object> objects = new Dictionary<Type, object>();
        Code code;

        public Functions(string codePath)
        {
            this.codePath = codePath;
        }

        public void Close()
        {
            if (code != null)
            {
                code.Close();
            }
        }

        /// <summary>What serves calls.</summary>
        public Handler Handler(string name)
        {
            return Find(name, false);
        }

        /// <summary>An initializer or a pre-stop hook.</summary>
        public Handler Hook(string name)
        {
            return Find(name, true);
        }

        Handler Find(string name, bool isHook)
        {
            string[] parts = name.Split(new[] { "::" }, StringSplitOptions.None);
            if (parts.Length != 3 || Array.IndexOf(parts, "") >= 0)
            {
                throw new Failure("HandlerNotFound", "Handler '" + name + "' is not of the form 'Assembly::Namespace.Class::Method'");
            }
            Type type = Class(parts[0], parts[1]);
            MethodInfo method = Method(type, parts[2]);
            return new Handler(name, method.IsStatic ? null : Instance(type), method, isHook);
        }

        Type Class(string assembly, string name)
        {
            string path = Path.Combine(codePath, assembly + ".dll");
            if (assembly.IndexOf('/') >= 0 || !File.Exists(path))
            {
                throw new Failure(typeof(FileNotFoundException).FullName, "Cannot find assembly '" + assembly + ".dll' in " + codePath);
            }
            code = code ?? new Code(codePath, path);
            Type type = code.LoadFromAssemblyPath(path).GetType(name, false);
            if (type == null)
            {
                throw new Failure(typeof(TypeLoadException).FullName, "Cannot find class '" + name + "' in " + path);
            }
            return type;
        }

        object Instance(Type type)
        {
            object known;
            if (objects.TryGetValue(type, out known))
            {
                return known;
            }
            if (type.IsAbstract || type.IsInterface || type.ContainsGenericParameters)
            {
                throw new Failure("HandlerNotFound", "Class '" + type.FullName + "' is abstract or generic: no object of it can be made");
            }
            ConstructorInfo constructor = type.GetConstructor(Everywhere & ~BindingFlags.Static, null, Type.EmptyTypes, null);
            if (constructor == null && !type.IsValueType)
            {
                string message = "Class '" + type.FullName + "' has no constructor without parameters";
                throw new Failure(typeof(MissingMethodException).FullName, message);
            }
            object made = constructor == null
                ? Activator.CreateInstance(type)
                : constructor.Invoke(BindingFlags.DoNotWrapExceptions, null, null, null);
            objects.Add(type, made);
            return made;
        }

        /// <summary>The method of that name; of several the public one, then the one that takes a context, then most.</summary>
        static MethodInfo Method(Type type, string name)
        {
            MethodInfo best = null;
            for (Type above = type; above != null && best == null; above = above.BaseType)
            {
                foreach (MethodInfo method in above.GetMethods(Everywhere))
                {
                    bool fits = method.Name == name && !method.ContainsGenericParameters && !method.IsAbstract;
                    if (fits && (best == null || Rank(method) > Rank(best)))
                    {
                        best = method;
                    }
                }
            }
            if (best == null)
            {
                string message = "Handler '" + name + "' missing on class '" + type.FullName + "'";
                throw new Failure(typeof(MissingMethodException).FullName, message);
            }
            return best;
        }

        static int Rank(MethodInfo method)
        {
            int rank = method.IsPublic ? 1000 : 0;
            foreach (ParameterInfo parameter in method.GetParameters())
            {
                rank += Dunlin.Handler.IsContext(parameter.ParameterType) ? 101 : 1;
            }
            return rank;
        }
    }
}
